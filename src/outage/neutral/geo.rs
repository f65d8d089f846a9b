//! Geographic sorted sets.

use super::parse::{float, integer};
use super::{Call, Fault, SYNTAX};
use crate::resp::write;

type Outcome = Result<(), Fault>;

const LONGITUDE_MAX: f64 = 180.0;
/// Web Mercator's edge.
const LATITUDE_MAX: f64 = 85.051_128_78;

pub(in crate::outage) fn distance(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    match call.len() {
        4 => {}
        5 => unit(call.arg(4))?,
        _ => return Err(SYNTAX),
    }
    write::null(out, call.protocol);
    Ok(())
}

pub(in crate::outage) fn search(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    const FROM: Fault = Fault::redis("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GEOSEARCH");
    const BY: Fault = Fault::redis("ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH");
    let (mut from_member, mut from_place, mut by_radius, mut by_box) = (false, false, false, false);
    let mut options = Options::default();
    let mut at = 2;
    while at < call.len() {
        if !from_place && call.is_with(at, "FROMMEMBER", 1) {
            from_member = true;
            at += 2;
        } else if !from_member && call.is_with(at, "FROMLONLAT", 2) {
            place(call.arg(at + 1), call.arg(at + 2))?;
            from_place = true;
            at += 3;
        } else if !by_box && call.is_with(at, "BYRADIUS", 2) {
            circle(call.arg(at + 1), call.arg(at + 2))?;
            by_radius = true;
            at += 3;
        } else if !by_radius && call.is_with(at, "BYBOX", 3) {
            rectangle(call.arg(at + 1), call.arg(at + 2), call.arg(at + 3))?;
            by_box = true;
            at += 4;
        } else {
            at += options.take(call, at)?;
        }
    }
    if !from_member && !from_place {
        return Err(FROM);
    }
    if !by_radius && !by_box {
        return Err(BY);
    }
    options.finish()?;
    write::array(out, 0);
    Ok(())
}

/// GEORADIUS and GEORADIUS_RO.
pub(in crate::outage) fn radius(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    place(call.arg(2), call.arg(3))?;
    circle(call.arg(4), call.arg(5))?;
    if radius_stores(call, 6)? {
        return Err(Fault::NotApplied);
    }
    write::array(out, 0);
    Ok(())
}

/// GEORADIUSBYMEMBER and its _RO form: Redis does not look at the radius where the key is missing.
pub(in crate::outage) fn radius_by_member(call: &Call<'_>, out: &mut Vec<u8>) -> Outcome {
    if radius_stores(call, 5)? {
        return Err(Fault::NotApplied);
    }
    write::array(out, 0);
    Ok(())
}

fn can_store(call: &Call<'_>) -> bool {
    !call.spec.name.ends_with("_RO")
}

fn radius_stores(call: &Call<'_>, first: usize) -> Result<bool, Fault> {
    const WITH: Fault =
        Fault::redis("ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options");
    let mut options = Options::default();
    let mut stores = false;
    let mut at = first;
    while at < call.len() {
        if can_store(call) && (call.is_with(at, "STORE", 1) || call.is_with(at, "STOREDIST", 1)) {
            stores = true;
            at += 2;
        } else {
            at += options.take(call, at)?;
        }
    }
    if stores && options.with {
        return Err(WITH);
    }
    options.finish()?;
    Ok(stores)
}

/// What all searches take.
#[derive(Default)]
struct Options {
    with: bool,
    any: bool,
    count: bool,
}

impl Options {
    /// Takes the option at a position and tells how many arguments it has.
    fn take(&mut self, call: &Call<'_>, at: usize) -> Result<usize, Fault> {
        if ["WITHDIST", "WITHHASH", "WITHCOORD"]
            .iter()
            .any(|word| call.is(at, word))
        {
            self.with = true;
        } else if call.is(at, "ANY") {
            self.any = true;
        } else if call.is_with(at, "COUNT", 1) {
            if integer(call.arg(at + 1))? <= 0 {
                return Err(Fault::redis("ERR COUNT must be > 0"));
            }
            self.count = true;
            return Ok(2);
        } else if !call.is(at, "ASC") && !call.is(at, "DESC") {
            return Err(SYNTAX);
        }
        Ok(1)
    }

    fn finish(&self) -> Outcome {
        if self.any && !self.count {
            return Err(Fault::redis("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }
}

fn unit(name: &[u8]) -> Outcome {
    let known: [&[u8]; 4] = [b"m", b"km", b"ft", b"mi"];
    if known.iter().any(|unit| name.eq_ignore_ascii_case(unit)) {
        Ok(())
    } else {
        Err(Fault::redis("ERR unsupported unit provided. please use M, KM, FT, MI"))
    }
}

fn place(longitude: &[u8], latitude: &[u8]) -> Outcome {
    const FLOAT: Fault = Fault::redis("ERR value is not a valid float");
    let longitude = float(longitude).ok_or(FLOAT)?;
    let latitude = float(latitude).ok_or(FLOAT)?;
    if longitude.abs() > LONGITUDE_MAX || latitude.abs() > LATITUDE_MAX {
        let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
        return Err(Fault::Redis(text.into()));
    }
    Ok(())
}

fn circle(radius: &[u8], unit_name: &[u8]) -> Outcome {
    let radius = float(radius).ok_or(Fault::redis("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(Fault::redis("ERR radius cannot be negative"));
    }
    unit(unit_name)
}

fn rectangle(width: &[u8], height: &[u8], unit_name: &[u8]) -> Outcome {
    let width = float(width).ok_or(Fault::redis("ERR need numeric width"))?;
    let height = float(height).ok_or(Fault::redis("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(Fault::redis("ERR height or width cannot be negative"));
    }
    unit(unit_name)
}
