//! What is loaded, changed and saved, or compared: sessions, documents, registries.

use crate::world::{Program, Raised, World};
use crate::{Damages, check};

#[test]
fn session_stores() {
    check(
        "session-stores.toml",
        sessions_story,
        &[
            "a user of Flask lost the session for good",
            "a user of express was logged out for good",
            "a session of Spring that was ended came back in part",
        ],
    );
}

fn sessions_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SETEX session:s1 3600 {user:7,cart:[1,2]}");
    redis.call("SETEX sess:s2 3600 {user:8}");
    redis.call("HSET spring:session:sessions:s3 creationTime 1 sessionAttr:user 9");
    world.cut();
    let mut program = world.program();
    let _ = flask_request(&mut program);
    let logged_out = express_request(&mut program);
    // Spring Session 3's `RedisIndexedSessionRepository.save`, of a session that was loaded before; it is ended elsewhere meanwhile.
    redis.call("DEL spring:session:sessions:s3");
    program
        .call("HMSET spring:session:sessions:s3 lastAccessedTime 2")
        .expect("a write");
    program.call("EXPIRE spring:session:sessions:s3 2100").expect("a write");
    drop(program);
    world.mend();

    if redis.get("session:s1").as_deref() != Some("{user:7,cart:[1,2]}") {
        damages.push("a user of Flask lost the session for good");
    }
    if logged_out.is_ok() {
        damages.push("a user of express was logged out for good");
    }
    if redis.call("EXISTS spring:session:sessions:s3").is_one() {
        damages.push("a session of Spring that was ended came back in part");
    }
    damages
}

/// Flask-Session up to 0.5: `open_session` keeps the ID of a session that it does not find, `save_session` stores under it.
fn flask_request(program: &mut Program<'_>) -> Result<(), Raised> {
    let session = program.call("GET session:s1")?;
    assert!(session.is_nothing(), "nobody knows it while down");
    program.call("SETEX session:s1 2678400 {_permanent:true}")?;
    Ok(())
}

/// express-session 1.18 with connect-redis 9: a session that is not found makes a new one, with a new cookie.
fn express_request(program: &mut Program<'_>) -> Result<(), Raised> {
    let session = program.call("GET sess:s2")?;
    assert!(session.is_nothing(), "nobody knows it while down");
    program.call("SET sess:new {cookie:{}} EX 86400")?;
    Ok(())
}

#[test]
fn document_stores() {
    check(
        "document-stores.toml",
        documents_story,
        &[
            "a profile was replaced by its default",
            "a cart that had expired came back in part and for ever",
        ],
    );
}

fn documents_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SET profile:7 {name:ada,since:1815}");
    redis.call("SET doc:1 old");
    redis.call("HSET cart:7 apples 3 pears 1");
    redis.call("HSET cart:8 apples 1");
    world.cut();
    let mut program = world.program();
    // Get or create.
    let profile = program.call("GET profile:7").expect("a neutral reply");
    assert!(profile.is_nothing(), "nobody knows it while down");
    program.call("SET profile:7 {visits:1}").expect("a write");
    program.call("SET profile:7 {visits:2}").expect("a write");
    // A user who is new, and a document that is stored without having been asked for.
    assert!(program.call("GET profile:8").expect("a neutral reply").is_nothing());
    program.call("SET profile:8 {visits:1}").expect("a write");
    program.call("SET doc:1 new").expect("a write");
    // The cart expires meanwhile.
    redis.call("DEL cart:7");
    program.call("HSET cart:7 plums 1").expect("a write");
    program.call("HSET cart:8 plums 1").expect("a write");
    drop(program);
    world.mend();

    if redis.get("profile:7").as_deref() != Some("{name:ada,since:1815}") {
        damages.push("a profile was replaced by its default");
    }
    if redis.call("EXISTS cart:7").is_one() {
        damages.push("a cart that had expired came back in part and for ever");
    }
    assert_eq!(
        redis.get("profile:8").as_deref(),
        Some("{visits:1}"),
        "a new document is kept"
    );
    assert_eq!(redis.get("doc:1").as_deref(), Some("new"));
    assert_eq!(
        redis.call("HLEN cart:8").integer(),
        2,
        "what is there takes its changes"
    );
    if damages.is_empty() {
        assert_eq!(world.dead_letters(), 3, "what was not replayed is kept");
    }
    damages
}

#[test]
fn registries() {
    check(
        "registries.toml",
        registries_story,
        &["every backend was taken out of service", "files in use were deleted"],
    );
}

fn registries_story(world: &mut World) -> Damages {
    let mut damages = Damages::new();
    let mut redis = world.elsewhere();
    redis.call("SADD backends:web 10.0.0.1 10.0.0.2");
    redis.call("SET upload:7 in-use");
    world.cut();
    let mut program = world.program();
    if program
        .call("SMEMBERS backends:web")
        .is_ok_and(|backends| backends.is_nothing())
    {
        damages.push("every backend was taken out of service");
    }
    if program.call("KEYS upload:*").is_ok_and(|uploads| uploads.is_nothing()) {
        damages.push("files in use were deleted");
    }
    drop(program);
    world.mend();
    damages
}
