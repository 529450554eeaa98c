//! Cuts after every single byte, each way, of a few short histories: whatever arrives, every exchange ends
//! complete or with an error on both sides, and a broken body never looks whole.

use crate::{
    plan::{Happening, Knobs, Plan, Side},
    search::run_plan,
};

const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// How many places were cut; the error says which did not hold.
pub(crate) fn every_byte() -> Result<u64, String> {
    let mut cuts = 0;
    for seed in SEEDS {
        for side in Side::BOTH {
            for bytes in 1.. {
                let plan = plan(seed, side, bytes);
                let held = run_plan(&plan, None, false)
                    .map_err(|why| format!("seed {seed}, cut after byte {bytes} of the {side:?}: {why}"))?;
                if held.seen.sessions == 1 {
                    break; // The whole history was shorter than that.
                }
                cuts += 1;
            }
        }
    }
    Ok(cuts)
}

/// Three exchanges of some seed with nothing but the cut, and short bodies.
fn plan(seed: u64, side: Side, bytes: u64) -> Plan {
    let knobs = Knobs { exchanges: 0b111, ..Knobs::ALL };
    let mut plan = Plan::draw(seed, &knobs);
    plan.hostile = None;
    for script in plan.scripts.iter_mut().flatten() {
        script.heads = (script.heads & 0xff) | 2 << 8 | 3 << 32;
        script.start %= 50_000;
        for flow in &mut script.flows {
            flow.len %= 60;
        }
    }
    plan.piece = 1 << 20;
    plan.happenings = vec![(1, Happening::Cut(side, bytes))];
    plan
}
