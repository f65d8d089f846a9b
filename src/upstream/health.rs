//! The health owner of one upstream: the only one that drives its breaker. Probes while OPEN, pings while CLOSED, listens to what the workers saw.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::dead::clear;
use super::dial::{
    Conversation, DialError, Facts, Handshake, Role, command, connect_bare, dial_counted, error_text, value_of,
};
use super::learn::learn;
use super::said::hello_facts;
use super::shared::{Mode, PasswordOwed, Shared, Sign};
use super::trouble::{apply, trouble_of, unusable};
use crate::breaker::{Breaker, Failure, HardSign, Transition, Trouble};
use crate::telemetry;

/// Between two PINGs while CLOSED.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at what the workers counted.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// So long the last trouble stays to be read while all is well.
const TROUBLE_SHOWN: Duration = Duration::from_secs(10);
/// An answer to PING is short.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What happens at the edges of CLOSED: the journal and its replay, which this room does not know.
pub trait Edges {
    /// Stops forwarding; returns once no worker writes to an older connection.
    fn open(&mut self) -> impl Future<Output = ()>;
    /// A probe has succeeded: fence, replay, and forward again.
    fn close(&mut self, conversation: Conversation, facts: &Facts) -> impl Future<Output = Result<(), Trouble>>;
    /// Called every second while CLOSED.
    fn tend(&mut self) -> impl Future<Output = ()>;
}

/// See the module.
pub struct Health<E> {
    shared: Arc<Shared>,
    signs: mpsc::Receiver<Sign>,
    breaker: Breaker,
    epoch: Instant,
    edges: E,
    pulse: Pulse,
    /// What it was when first reached: a replica that always was one is healthy.
    first_role: Option<Role>,
    /// When something was last wrong.
    troubled_at: Duration,
    /// What was last wrong with TLS, until a dial succeeds.
    tls_failed: Option<String>,
    /// A sign that proves nothing by itself was seen: the upstream is to be asked before its time.
    is_in_doubt: bool,
}

/// When the upstream was last heard.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    /// Replies counted so far, of all workers.
    replies: u64,
    heard_at: Duration,
}

/// How a PING ended.
enum Pinged {
    /// With the replies to PING and to HELLO.
    Answered(Result<[Vec<u8>; 2], DialError>),
    /// Nothing was heard from the upstream for `timeouts.command`, on any connection.
    Silence,
    /// Others are answered: it is this connection that is broken.
    Broken,
    Tripped(Transition),
}

impl<E> std::fmt::Debug for Health<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health")
            .field("upstream", &self.shared.target.name)
            .finish_non_exhaustive()
    }
}

impl<E: Edges> Health<E> {
    #[must_use]
    pub fn new(shared: Arc<Shared>, signs: mpsc::Receiver<Sign>, settings: crate::breaker::Settings, edges: E) -> Self {
        let breaker = Breaker::new(settings, Duration::ZERO);
        let epoch = Instant::now();
        Self {
            shared,
            signs,
            breaker,
            epoch,
            edges,
            pulse: Pulse::default(),
            first_role: None,
            troubled_at: Duration::ZERO,
            tls_failed: None,
            is_in_doubt: false,
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Runs for the life of the process.
    pub async fn run(mut self) {
        loop {
            let (conversation, facts) = self.probe_until_answered().await;
            let transition = self.breaker.probe_succeeded();
            self.note(transition);
            self.shared.set_facts(facts.clone());
            self.shared.set_mode(Mode::CatchingUp);
            if let Err(trouble) = self.edges.close(conversation, &facts).await {
                let now = self.now();
                let transition = self.breaker.replay_failed(trouble, now, fastrand::f64());
                self.trouble(trouble);
                self.note(transition);
                self.shared.set_mode(Mode::Down);
                continue;
            }
            let transition = self.breaker.caught_up();
            self.note(transition);
            // Another process, or another version, may answer now.
            self.shared.learned.want();
            let transition = self.closed().await;
            self.note(Some(transition));
            // The mode is looked at only once the generation has moved.
            self.shared.set_mode(Mode::Down);
            self.edges.open().await;
        }
    }

    /// CLOSED, until the breaker trips. Records that an operator puts behind the backlog are replayed without its opening.
    async fn closed(&mut self) -> Transition {
        loop {
            self.shared.set_last_error(None);
            self.shared.set_mode(Mode::Healthy);
            if let Some(transition) = self.until_trouble().await {
                return transition;
            }
            self.shared.set_mode(Mode::CatchingUp);
            while !self.shared.generation().is_multiple_of(2) {
                let trouble = match self.converse().await {
                    Ok((conversation, facts)) => self.edges.close(conversation, &facts).await.err(),
                    Err((trouble, _)) => Some(trouble),
                };
                if let Some(transition) = trouble.and_then(|trouble| self.failed(trouble)) {
                    return transition;
                }
            }
        }
    }

    fn note(&self, transition: Option<Transition>) {
        if let Some(Transition { from, to, reason }) = transition {
            telemetry::breaker_transition(&self.shared.target.name, from.label(), to.label(), reason.label());
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.show(trouble.label());
    }

    fn show(&mut self, text: &str) {
        self.shared.set_last_error(Some(text.to_owned()));
        self.troubled_at = self.now();
    }

    /// OPEN: fresh connections under backoff, until one answers as a healthy upstream does.
    async fn probe_until_answered(&mut self) -> (Conversation, Facts) {
        loop {
            if let Some(at) = self.breaker.next_probe_at() {
                sleep_until(self.epoch + at).await;
            }
            // What workers saw before says nothing about the probe.
            while self.signs.try_recv().is_ok() {}
            let now = self.now();
            // It is due: that is what was waited for.
            let _ = self.breaker.probe_started(now);
            if self.shared.mode() != Mode::Starting {
                self.shared.set_mode(Mode::Probing);
            }
            match self.probe().await {
                Ok(answered) => return answered,
                Err((trouble, text)) => {
                    telemetry::probe_failed(&self.shared.target.name, trouble.label());
                    let now = self.now();
                    let transition = self.breaker.probe_failed(trouble, now, fastrand::f64());
                    self.note(transition);
                    self.trouble(trouble);
                    self.shared.set_last_error(Some(text));
                    self.shared.set_mode(Mode::Down);
                }
            }
        }
    }

    async fn probe(&mut self) -> Result<(Conversation, Facts), (Trouble, String)> {
        // One that would be taken for silent as soon as it is CLOSED is not back yet.
        let timeouts = self.shared.target.timeouts;
        let limit = timeouts.connect.min(timeouts.command);
        let (mut conversation, mut facts) = self.converse().await?;
        if let Some(text) = &facts.ping_error
            && let Some(trouble) = unusable(text)
        {
            return Err((trouble, text.clone()));
        }
        if self.is_demoted(facts.role) {
            return Err((Trouble::Hard(HardSign::Demoted), Sign::Demoted.text().to_owned()));
        }
        if self.first_role.is_none() && facts.role != Role::Unknown {
            self.first_role = Some(facts.role);
        }
        // A conversation with a reply still to come would take it for that to the next question.
        let replies = timeout(limit, conversation.ask(&command(&["CONFIG", "GET", "databases"]), 1))
            .await
            .unwrap_or(Err(DialError::Silence(limit)))
            .map_err(|error| (trouble_of(&error), error.to_string()))?;
        if let Some(databases) = replies.first().and_then(|reply| databases(reply)) {
            facts.databases = databases;
        }
        Ok((conversation, facts))
    }

    /// A connection that is authenticated, where the URL has credentials, or on which the upstream asks for a password.
    async fn converse(&mut self) -> Result<(Conversation, Facts), (Trouble, String)> {
        let target = &self.shared.target;
        let credentials = target.own_credentials();
        let handshake = Handshake::in_own_name(credentials.as_ref(), target.db);
        match dial_counted(target, &handshake).await {
            Ok(dialled) => {
                self.shared.set_password_owed(PasswordOwed::No);
                self.tls_failed = None;
                let facts = dialled.facts.clone();
                Ok((Conversation::from(dialled), facts))
            }
            Err(DialError::PasswordOwed(text)) => {
                self.shared.set_password_owed(PasswordOwed::Yes);
                let conversation = connect_bare(target)
                    .await
                    .map_err(|error| (trouble_of(&error), error.to_string()))?;
                let facts = Facts {
                    hello_refusal: Some(text),
                    ..Facts::default()
                };
                Ok((conversation, facts))
            }
            Err(error) => {
                if let DialError::Tls(_) = error
                    && self.tls_failed.replace(error.to_string()) != Some(error.to_string())
                {
                    telemetry::tls_failed(&self.shared.target.name, &error);
                }
                Err((trouble_of(&error), error.to_string()))
            }
        }
    }

    /// Returns with the trip, or with nothing when somebody else has begun a journaling generation.
    async fn until_trouble(&mut self) -> Option<Transition> {
        // What workers saw while it was catching up (no place for the reads that went there) is over.
        while self.signs.try_recv().is_ok() {}
        self.look();
        self.pulse.heard_at = self.now();
        let mut health: Option<Conversation> = None;
        self.is_in_doubt = false;
        let mut ping_at = Instant::now();
        let mut tend_at = Instant::now() + PING_INTERVAL;
        loop {
            if Instant::now() >= ping_at {
                if let Some(transition) = self.ping(&mut health).await {
                    return Some(transition);
                }
                let wait = if self.is_in_doubt { LOOK_INTERVAL } else { PING_INTERVAL };
                ping_at = Instant::now() + wait;
            }
            if Instant::now() >= tend_at {
                self.edges.tend().await;
                let reset = self.shared.connections.take_reset();
                if !reset.is_empty() {
                    tokio::task::spawn_local(clear(Arc::clone(&self.shared), reset));
                }
                tend_at = Instant::now() + PING_INTERVAL;
            }
            if let Ok(Some(sign)) = timeout(LOOK_INTERVAL, self.signs.recv()).await {
                self.look();
                if let Some(transition) = self.sign(sign) {
                    return Some(transition);
                }
            }
            self.look();
            if self.is_in_doubt {
                ping_at = ping_at.min(Instant::now() + LOOK_INTERVAL);
            }
            if self.shared.known.take_freed() {
                // Journaled writes of a user who has come back: the upstream is well, so the breaker stays as it is.
                self.edges.open().await;
            }
            if !self.shared.generation().is_multiple_of(2) {
                return None;
            }
            if self.shared.learned.take_wanted() {
                tokio::task::spawn_local(learn(Arc::clone(&self.shared)));
            }
        }
    }

    /// One PING on the health connection, for as long as silence may last; meanwhile signs are listened to.
    async fn ping(&mut self, health: &mut Option<Conversation>) -> Option<Transition> {
        self.is_in_doubt = false;
        if health.is_none() {
            match self.converse().await {
                Ok((conversation, facts)) => {
                    if self.is_another_server(&facts) {
                        return self.sign(Sign::Replaced);
                    }
                    if self.is_demoted(facts.role) {
                        return self.sign(Sign::Demoted);
                    }
                    if let Some(text) = &facts.ping_error
                        && let Some(trouble) = unusable(text)
                    {
                        return self.failed(trouble);
                    }
                    *health = Some(conversation);
                }
                Err((trouble, _)) => return self.failed(trouble),
            }
        }
        let mut conversation = health.take()?;
        let sent_at = std::time::Instant::now();
        // The role, too, for a master that became a replica goes on answering PING.
        let questions = [command(&["PING"]), command(&["HELLO"])].concat();
        if conversation.send(&questions).await.is_err() {
            return self.lost();
        }
        match self.pinged(&mut conversation).await {
            Pinged::Answered(Ok([pong, hello])) => {
                self.pulse.heard_at = self.now();
                self.shared.set_answered(sent_at);
                *health = Some(conversation);
                if self.is_demoted(hello_facts(&hello).role) {
                    return self.sign(Sign::Demoted);
                }
                if self.now().saturating_sub(self.troubled_at) > TROUBLE_SHOWN {
                    self.shared.set_last_error(None);
                }
                let trouble = error_text(&pong).and_then(|text| unusable(&text));
                trouble.and_then(|trouble| self.failed(trouble))
            }
            Pinged::Answered(Err(_)) => {
                self.look();
                self.lost()
            }
            Pinged::Silence => self.failed(Trouble::Silence),
            Pinged::Broken => None,
            Pinged::Tripped(transition) => Some(transition),
        }
    }

    /// The health connection has ended. Whether there can be another one tells more than a second of waiting.
    fn lost(&mut self) -> Option<Transition> {
        self.sign(Sign::Reset)
    }

    /// Waits for the answer to a PING, and for its absence to mean something; listens to signs meanwhile.
    async fn pinged(&mut self, conversation: &mut Conversation) -> Pinged {
        let silence = self.shared.target.timeouts.command;
        let sent_at = self.now();
        let mut answer = std::pin::pin!(async {
            let pong = conversation.next_reply(ANSWER_BYTES_MAX).await?;
            Ok([pong, conversation.next_reply(ANSWER_BYTES_MAX).await?])
        });
        loop {
            tokio::select! {
                answered = &mut answer => return Pinged::Answered(answered),
                sign = self.signs.recv() => {
                    self.look();
                    if let Some(transition) = sign.and_then(|sign| self.sign(sign)) {
                        return Pinged::Tripped(transition);
                    }
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => self.look(),
            }
            let now = self.now();
            if now.saturating_sub(self.pulse.heard_at.max(sent_at)) >= silence {
                return Pinged::Silence;
            }
            if now.saturating_sub(sent_at) >= silence * 3 {
                return Pinged::Broken;
            }
        }
    }

    fn is_demoted(&self, role: Role) -> bool {
        (self.first_role, role) == (Some(Role::Master), Role::Replica)
    }

    fn is_another_server(&self, facts: &Facts) -> bool {
        matches!((&self.shared.facts().run_id, &facts.run_id), (Some(known), Some(now)) if known != now)
    }

    fn failed(&mut self, trouble: Trouble) -> Option<Transition> {
        self.trouble(trouble);
        let now = self.now();
        let unheard = now.saturating_sub(self.pulse.heard_at);
        match trouble {
            // Connected by the kernel, and nothing heard since long before: it is the upstream that is silent.
            Trouble::Soft(Failure::ConnectTimeout) if unheard >= self.shared.target.timeouts.command => {
                self.breaker.silence(now)
            }
            // It is the next connection that there cannot be, while those that are there are answered.
            Trouble::Soft(Failure::MaxClients | Failure::NameResolution | Failure::Shortage) if self.serves(now) => {
                None
            }
            Trouble::Hard(sign) => self.breaker.hard(sign, now),
            Trouble::Soft(failure) => self.breaker.failure(failure, now),
            Trouble::Silence => self.breaker.silence(now),
        }
    }

    fn sign(&mut self, sign: Sign) -> Option<Transition> {
        let now = self.now();
        if sign != Sign::SaidByScript {
            self.show(sign.text());
        }
        match sign {
            Sign::Denied | Sign::SaidByScript => {
                self.is_in_doubt = true;
                None
            }
            // A failure for whoever wants one more connection, not while the others are answered.
            Sign::Full | Sign::NameUnknown if self.serves(now) => None,
            sign => {
                // Sessions wait to hear whether that was the end of one connection or of all.
                self.is_in_doubt |= matches!(sign, Sign::Reset);
                apply(&mut self.breaker, sign, now)
            }
        }
    }

    fn is_waited_for(&self) -> bool {
        const LONG_MS: u64 = LOOK_INTERVAL.as_millis() as u64;
        let mut workers = self.shared.workers.iter();
        workers.any(|worker| worker.stats.oldest_unanswered_ms.load(Relaxed) >= LONG_MS)
    }

    /// Whether those that are connected are answered.
    fn serves(&self, now: Duration) -> bool {
        let mut workers = self.shared.workers.iter();
        let is_connected = workers.any(|worker| worker.stats.connections.load(Relaxed) > 0);
        is_connected && now.saturating_sub(self.pulse.heard_at) < PING_INTERVAL * 2
    }

    /// Tells the breaker of the replies since the last look.
    fn look(&mut self) {
        let now = self.now();
        let replies: u64 = self
            .shared
            .workers
            .iter()
            .map(|worker| worker.stats.replies.load(Relaxed))
            .sum();
        if replies > self.pulse.replies {
            self.breaker.successes(replies - self.pulse.replies, now);
            self.pulse = Pulse { replies, heard_at: now };
        }
        // Somebody waits and nobody is answered: silence begins now, not with the next PING in its time.
        if now.saturating_sub(self.pulse.heard_at) >= LOOK_INTERVAL && self.is_waited_for() {
            self.is_in_doubt = true;
        }
    }
}

/// The answer to `CONFIG GET databases`.
fn databases(reply: &[u8]) -> Option<u32> {
    // Without the right to CONFIG the answer is an error, and Redis's default is assumed.
    let text = String::from_utf8_lossy(reply);
    value_of(&text, "databases\r\n", '\0')?
        .split("\r\n")
        .nth(1)?
        .parse()
        .ok()
}
