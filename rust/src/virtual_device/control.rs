//! What is written to a device: which points take it, what they adopt, and how they fall back.

use ipss_modbus::sunspec::{BlockImage, Value, walk};
use ipss_session::WallTime;

/// A set point that falls back by itself.
struct Revert {
    model: u16,
    /// Writing a point whose name begins so starts the timer again.
    prefix: &'static str,
    /// Seconds after which it falls back; 0 for never.
    timeout: &'static str,
    /// Where the seconds that are left are shown.
    remaining: Option<&'static str>,
    /// What falls back to what: another point, or a number.
    falls: &'static [(&'static str, To)],
}

enum To {
    Point(&'static str),
    Number(i128),
}

use To::{Number, Point};

const REVERTS: [Revert; 10] = [
    Revert { model: 123, prefix: "Conn", timeout: "Conn_RvrtTms", remaining: None, falls: &[("Conn", Number(1))] },
    Revert {
        model: 123,
        prefix: "WMaxLim",
        timeout: "WMaxLimPct_RvrtTms",
        remaining: None,
        falls: &[("WMaxLim_Ena", Number(0))],
    },
    Revert {
        model: 123,
        prefix: "OutPFSet",
        timeout: "OutPFSet_RvrtTms",
        remaining: None,
        falls: &[("OutPFSet_Ena", Number(0))],
    },
    Revert {
        model: 704,
        prefix: "PFWInj",
        timeout: "PFWInjRvrtTms",
        remaining: Some("PFWInjRvrtRem"),
        falls: &[("PFWInjEna", Point("PFWInjEnaRvrt")), ("PFWInj.PF", Point("PFWInjRvrt.PF"))],
    },
    Revert {
        model: 704,
        prefix: "WMaxLimPct",
        timeout: "WMaxLimPctRvrtTms",
        remaining: Some("WMaxLimPctRvrtRem"),
        falls: &[("WMaxLimPctEna", Point("WMaxLimPctEnaRvrt")), ("WMaxLimPct", Point("WMaxLimPctRvrt"))],
    },
    Revert {
        model: 704,
        prefix: "WSet",
        timeout: "WSetRvrtTms",
        remaining: Some("WSetRvrtRem"),
        falls: &[("WSetEna", Point("WSetEnaRvrt")), ("WSet", Point("WSetRvrt")), ("WSetPct", Point("WSetPctRvrt"))],
    },
    Revert {
        model: 704,
        prefix: "VarSet",
        timeout: "VarSetRvrtTms",
        remaining: Some("VarSetRvrtRem"),
        falls: &[("VarSetEna", Point("VarSetEnaRvrt")), ("VarSetPct", Point("VarSetPctRvrt"))],
    },
    Revert { model: 705, prefix: "", timeout: "RvrtTms", remaining: Some("RvrtRem"), falls: &[("Ena", Number(0))] },
    Revert { model: 706, prefix: "", timeout: "RvrtTms", remaining: Some("RvrtRem"), falls: &[("Ena", Number(0))] },
    Revert { model: 711, prefix: "", timeout: "RvrtTms", remaining: Some("RvrtRem"), falls: &[("Ena", Number(0))] },
];

/// When each set point falls back.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<i64>; REVERTS.len()]);

impl Timers {
    /// The first that runs out until `now_us`.
    pub(super) fn next(&self, now_us: i64) -> Option<i64> {
        self.0.iter().flatten().copied().filter(|due_us| *due_us <= now_us).min()
    }

    /// These points of `block` were written: a timer runs anew, or not at all if its timeout is 0.
    pub(super) fn start(&mut self, block: &BlockImage, touched: &[String], now_us: i64) {
        for (due, revert) in self.0.iter_mut().zip(&REVERTS) {
            if revert.model == block.model().id && touched.iter().any(|name| name.starts_with(revert.prefix)) {
                let seconds = integer(block, revert.timeout).unwrap_or(0);
                *due = (seconds > 0).then(|| now_us.saturating_add(seconds.saturating_mul(WallTime::SECOND)));
            }
        }
    }

    /// Let fall back what is due at `due_us`.
    pub(super) fn expire(&mut self, due_us: i64, blocks: &mut [BlockImage]) {
        for (due, revert) in self.0.iter_mut().zip(&REVERTS) {
            if due.is_none_or(|due| due > due_us) {
                continue;
            }
            *due = None;
            let Some(block) = blocks.iter_mut().find(|block| block.model().id == revert.model) else { continue };
            for (point, to) in revert.falls {
                let value = match to {
                    Number(number) => Ok(Value::Integer(*number)),
                    Point(name) => block.get(name),
                };
                // Where no fall-back is said, the function is switched off and its value stays.
                match value {
                    Ok(Value::NotImplemented) if point.ends_with("Ena") => set(block, point, 0),
                    Ok(Value::NotImplemented) | Err(_) => {}
                    Ok(value) => {
                        let _ = block.set(point, &value);
                    }
                }
            }
        }
    }

    /// Show what is left of each timer.
    pub(super) fn show(&self, now_us: i64, blocks: &mut [BlockImage]) {
        for (due, revert) in self.0.iter().zip(&REVERTS) {
            let block = blocks.iter_mut().find(|block| block.model().id == revert.model);
            if let (Some(name), Some(block)) = (revert.remaining, block) {
                let left_us = due.map_or(0, |due| due - now_us).max(0);
                set(block, name, left_us.saturating_add(WallTime::SECOND - 1) / WallTime::SECOND);
            }
        }
    }
}

/// The points that a write of `count` registers at `offset` changes; `None` if one of its registers may only be read.
pub(super) fn touched(block: &BlockImage, offset: usize, count: usize) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let (mut writable, mut covered) = (true, 0);
    walk(block.model(), block.registers(), &mut |place| {
        let end = place.offset + usize::from(place.point.size);
        let common = end.min(offset + count).saturating_sub(place.offset.max(offset));
        if common == 0 {
            return;
        }
        covered += common;
        // A part of a point is no point, and the curve in use is changed by adopting another.
        let whole = common == usize::from(place.point.size);
        let in_use = place.path.get(1).is_some_and(|step| matches!(step.group.name, "Crv" | "Ctl") && step.index == 1);
        writable &= place.point.writable && whole && !in_use;
        names.push(place.name());
    });
    (writable && covered == count).then_some(names)
}

/// Whether the controls of a block as it would be make sense.
pub(super) fn accepts(block: &BlockImage) -> bool {
    let within = |name: &str, low: i64, high: i64| {
        block.number(name).map_or(true, |number| {
            number.is_none_or(|number| number.rounded_at(-2).is_some_and(|n| (low.into()..=high.into()).contains(&n)))
        })
    };
    let switch = |name: &str| within(name, 0, 100);
    match block.model().id {
        123 => {
            within("WMaxLimPct", 0, 10_000)
                && within("OutPFSet", -100, 100)
                && ["Conn", "WMaxLim_Ena", "OutPFSet_Ena", "VArPct_Ena"].into_iter().all(switch)
        }
        704 => {
            within("WMaxLimPct", 0, 10_000)
                && within("WMaxLimPctRvrt", 0, 10_000)
                && within("WSetPct", -10_000, 10_000)
                && within("PFWInj.PF", 0, 100)
                && within("VarSetPct", -10_000, 10_000)
                && ["WMaxLimPctEna", "WSetEna", "PFWInjEna", "VarSetEna", "WSetMod"].into_iter().all(switch)
        }
        705 | 706 | 711 => switch("Ena"),
        _ => true,
    }
}

/// Take over the curve or the droop settings that were asked for: 705 and 706 `AdptCrvReq`, 711 `AdptCtlReq`.
pub(super) fn adopt(block: &mut BlockImage) {
    let (request, result, group) = match block.model().id {
        705 | 706 => ("AdptCrvReq", "AdptCrvRslt", "Crv"),
        711 => ("AdptCtlReq", "AdptCtlRslt", "Ctl"),
        _ => return,
    };
    let Some(wanted) = integer(block, request).filter(|wanted| *wanted > 1) else { return };
    let mut copies: Vec<(String, Value)> = Vec::new();
    let from = format!("{group}[{wanted}].");
    walk(block.model(), block.registers(), &mut |place| {
        if let Some(name) = place.name().strip_prefix(&from).filter(|name| *name != "ReadOnly") {
            copies.push((format!("{group}[1].{name}"), place.value()));
        }
    });
    const COMPLETED: i64 = 1;
    const FAILED: i64 = 2;
    set(block, result, if copies.is_empty() { FAILED } else { COMPLETED });
    for (name, value) in copies {
        let _ = block.set(&name, &value);
    }
    set(block, request, 1);
}

/// A point's integer, unscaled.
pub(super) fn integer(block: &BlockImage, name: &str) -> Option<i64> {
    match block.get(name) {
        Ok(Value::Integer(integer)) => i64::try_from(integer).ok(),
        _ => None,
    }
}

/// Set a point to an integer, unscaled; what does not fit or is not there is left as it is.
pub(super) fn set(block: &mut BlockImage, name: &str, value: i64) {
    let _ = block.set(name, &Value::Integer(value.into()));
}
