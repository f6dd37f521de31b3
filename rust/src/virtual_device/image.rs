//! The SunSpec blocks of a device: what it says of itself, and what it measures.

use ipss_modbus::decimal::Decimal;
use ipss_modbus::sunspec::{BlockImage, Value};

use super::Kind;
use super::control::set;
use super::plant::{MAX_VAR, Operation, Plant};

/// Who makes virtual devices.
const MAKER: &str = "ipss-headend";

/// What they are called.
fn product(kind: Kind) -> &'static str {
    match kind {
        Kind::Inverter => "virtual inverter",
        Kind::Storage => "virtual storage",
        Kind::SubMeter => "virtual sub-meter",
    }
}

/// An object of device identification (43/14).
pub(super) fn identification(kind: Kind, object: u8) -> Option<&'static [u8]> {
    match object {
        0 => Some(MAKER.as_bytes()),
        1 => Some(product(kind).as_bytes()),
        2 => Some(env!("CARGO_PKG_VERSION").as_bytes()),
        _ => None,
    }
}

/// The blocks of a device as it leaves the factory: everything connected, no limit, all functions off.
pub(super) fn blocks(plant: &Plant, index: u32) -> Vec<BlockImage> {
    let mut blocks: Vec<BlockImage> = Vec::new();
    // Every model here is a published one.
    let mut add = |id: u16, counts: &[(&str, u16)], points: &[(&str, i64)]| {
        if let Ok(mut block) = BlockImage::new(id, counts) {
            points.iter().for_each(|(name, value)| set(&mut block, name, *value));
            blocks.push(block);
        }
    };
    add(1, &[], &[("DA", 1)]);
    if plant.kind == Kind::SubMeter {
        let scales =
            [("A_SF", -2), ("V_SF", -1), ("Hz_SF", -2), ("W_SF", 0), ("VA_SF", 0), ("VAR_SF", 0), ("PF_SF", -2)];
        add(203, &[], &scales);
        blocks.iter_mut().for_each(|block| set(block, "TotWh_SF", 0));
    } else {
        let rated = plant.rated_w;
        let var = (rated as f64 * MAX_VAR) as i64;
        let scales = [
            ("A_SF", -2),
            ("V_SF", -1),
            ("W_SF", 0),
            ("Hz_SF", -2),
            ("VA_SF", 0),
            ("VAr_SF", 0),
            ("PF_SF", -2),
            ("WH_SF", 0),
            ("DCA_SF", -2),
            ("DCV_SF", -1),
            ("DCW_SF", 0),
            ("Tmp_SF", 0),
            ("Evt1", 0),
            ("Evt2", 0),
        ];
        add(103, &[], &scales);
        // DERTyp: 4 photovoltaic, 82 with storage.
        let kind = if plant.kind == Kind::Storage { 82 } else { 4 };
        let nameplate = [
            ("DERTyp", kind),
            ("WRtg", rated),
            ("WRtg_SF", 0),
            ("VARtg", rated * 11 / 10),
            ("VARtg_SF", 0),
            ("VArRtgQ1", var),
            ("VArRtgQ4", -var),
            ("VArRtg_SF", 0),
            ("ARtg", rated * 100 / 690),
            ("ARtg_SF", -2),
            ("PFRtgQ1", 85),
            ("PFRtgQ4", -85),
            ("PFRtg_SF", -2),
        ];
        add(120, &[], &nameplate);
        let settings = [
            ("WMax", rated),
            ("WMax_SF", 0),
            ("VRef", 2_300),
            ("VRef_SF", -1),
            ("VRefOfs", 0),
            ("VRefOfs_SF", -1),
            ("VAMax", rated * 11 / 10),
            ("VAMax_SF", 0),
            ("VArMaxQ1", var),
            ("VArMax_SF", 0),
            ("ECPNomHz", 5_000),
            ("ECPNomHz_SF", -2),
        ];
        add(121, &[], &settings);
        let immediate = [
            ("Conn", 1),
            ("Conn_RvrtTms", 0),
            ("WMaxLimPct", 1_000),
            ("WMaxLimPct_SF", -1),
            ("WMaxLimPct_RvrtTms", 0),
            ("WMaxLim_Ena", 0),
            ("OutPFSet", 100),
            ("OutPFSet_SF", -2),
            ("OutPFSet_RvrtTms", 0),
            ("OutPFSet_Ena", 0),
            ("VArPct_SF", -1),
            ("VArPct_Ena", 0),
        ];
        add(123, &[], &immediate);
        let measured = [
            ("ACType", 3),
            ("Alrm", 0),
            ("DERMode", 1),
            ("A_SF", -2),
            ("V_SF", -1),
            ("Hz_SF", -3),
            ("W_SF", 0),
            ("PF_SF", -2),
            ("VA_SF", 0),
            ("Var_SF", 0),
            ("TotWh_SF", 0),
            ("TotVarh_SF", 0),
            ("Tmp_SF", 0),
        ];
        add(701, &[], &measured);
        let controls = [
            ("PFWInjEna", 0),
            ("PFWInjRvrtTms", 0),
            ("PFWInjRvrtRem", 0),
            ("WMaxLimPctEna", 0),
            ("WMaxLimPct", 1_000),
            ("WMaxLimPctRvrtTms", 0),
            ("WMaxLimPctRvrtRem", 0),
            ("WSetEna", 0),
            ("WSetMod", 0),
            ("WSet", 0),
            ("WSetPct", 0),
            ("WSetRvrtTms", 0),
            ("WSetRvrtRem", 0),
            ("VarSetEna", 0),
            ("VarSetMod", 1),
            ("VarSetPct", 0),
            ("VarSetRvrtTms", 0),
            ("VarSetRvrtRem", 0),
            ("PF_SF", -2),
            ("WMaxLimPct_SF", -1),
            ("WSet_SF", 0),
            ("WSetPct_SF", -1),
            ("VarSet_SF", 0),
            ("VarSetPct_SF", -1),
            ("PFWInj.PF", 100),
            ("PFWInj.Ext", 0),
        ];
        add(704, &[], &controls);
        let curve = |points: &[(i64, i64)], value: &str| {
            let mut all = vec![
                ("Ena".to_owned(), 0),
                ("AdptCrvReq".into(), 1),
                ("AdptCrvRslt".into(), 1),
                ("RvrtTms".into(), 0),
                ("RvrtRem".into(), 0),
                ("V_SF".into(), -1),
                ("DeptRef_SF".into(), -1),
                ("RspTms_SF".into(), 0),
            ];
            for curve in 1..=CURVES {
                all.push((format!("Crv[{curve}].ActPt"), points.len() as i64));
                all.push((format!("Crv[{curve}].ReadOnly"), i64::from(curve == 1)));
                all.push((format!("Crv[{curve}].RspTms"), 5));
                for (index, (voltage, amount)) in points.iter().enumerate() {
                    all.push((format!("Crv[{curve}].Pt[{}].V", index + 1), *voltage));
                    all.push((format!("Crv[{curve}].Pt[{}].{value}", index + 1), *amount));
                }
            }
            all
        };
        // IEEE 1547-2018, table 8 (category B) and table 10: percent of nominal voltage, percent of the rating.
        let volt_var = curve(&[(920, 1_000), (980, 0), (1_020, 0), (1_080, -1_000)], "Var");
        let volt_watt = curve(&[(1_060, 1_000), (1_100, 0)], "W");
        for (id, points, count) in [(705, volt_var, 4), (706, volt_watt, 2)] {
            let points: Vec<(&str, i64)> = points.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            add(id, &[("NCrv", CURVES), ("NPt", count)], &points);
        }
        let mut droop = vec![
            ("Ena", 0),
            ("AdptCtlReq", 1),
            ("AdptCtlRslt", 1),
            ("RvrtTms", 0),
            ("RvrtRem", 0),
            ("Db_SF", -3),
            ("K_SF", -3),
            ("RspTms_SF", 0),
        ];
        // IEEE 1547-2018, table 24: 36 mHz, 5 %.
        droop.extend([
            ("Ctl[1].DbOf", 36),
            ("Ctl[1].DbUf", 36),
            ("Ctl[1].KOf", 50),
            ("Ctl[1].KUf", 50),
            ("Ctl[1].ReadOnly", 1),
            ("Ctl[2].DbOf", 36),
            ("Ctl[2].DbUf", 36),
            ("Ctl[2].KOf", 50),
            ("Ctl[2].KUf", 50),
            ("Ctl[2].ReadOnly", 0),
        ]);
        add(711, &[("NCtl", CURVES)], &droop);
        if plant.kind == Kind::Storage {
            let capacity =
                [("WH_SF", 1), ("Pct_SF", -1), ("WHRtg", plant.capacity_wh / 10), ("SoH", 1_000), ("Sta", 0)];
            add(713, &[], &capacity);
        }
    }
    let texts = [
        ("Mn", MAKER.to_owned()),
        ("Md", product(plant.kind).into()),
        ("Vr", env!("CARGO_PKG_VERSION").into()),
        ("SN", format!("V{:07}", index + 1)),
    ];
    for (name, text) in texts {
        let _ = blocks[0].set(name, &Value::Text(text));
    }
    blocks
}

/// Put what a device measures into its blocks.
pub(super) fn show(plant: &Plant, operation: &Operation, blocks: &mut [BlockImage]) {
    let Operation { power_w, reactive_var, voltage_v, frequency_hz, connected, throttled, .. } = *operation;
    let apparent_va = power_w.hypot(reactive_var);
    let mean_v = voltage_v.iter().sum::<f64>() / 3.0;
    let current_a = apparent_va / (3.0 * mean_v);
    let factor = if apparent_va < 1.0 { 1.0 } else { power_w / apparent_va };
    let running = power_w.abs() >= 1.0;
    for block in blocks {
        let id = block.model().id;
        match id {
            103 => {
                put(block, "W", power_w);
                put(block, "VAr", reactive_var);
                put(block, "VA", apparent_va);
                put(block, "PF", factor);
                put(block, "Hz", frequency_hz);
                put(block, "A", current_a * 3.0);
                for (index, phase) in ["A", "B", "C"].into_iter().enumerate() {
                    put(block, &format!("Aph{phase}"), current_a);
                    put(block, &format!("PhVph{phase}"), voltage_v[index]);
                }
                put(block, "DCV", 620.0);
                put(block, "DCW", power_w * 1.03);
                put(block, "DCA", power_w.max(0.0) * 1.03 / 620.0);
                put(block, "TmpCab", 25.0 + 20.0 * power_w.abs() / plant.rated_w as f64);
                set(block, "WH", (plant.injected_ws / 3_600) & 0xFFFF_FFFF);
                // 1 off, 2 sleeping, 4 MPPT, 5 throttled, 8 standby.
                set(
                    block,
                    "St",
                    if !connected {
                        8
                    } else if throttled {
                        5
                    } else if running {
                        4
                    } else {
                        2
                    },
                );
            }
            701 => {
                put(block, "W", power_w);
                put(block, "Var", reactive_var);
                put(block, "VA", apparent_va);
                put(block, "PF", factor);
                put(block, "Hz", frequency_hz);
                put(block, "A", current_a * 3.0);
                put(block, "LNV", mean_v);
                put(block, "LLV", mean_v * 3_f64.sqrt());
                for (index, volts) in voltage_v.into_iter().enumerate() {
                    put(block, &format!("WL{}", index + 1), power_w / 3.0);
                    put(block, &format!("VL{}", index + 1), volts);
                    put(block, &format!("AL{}", index + 1), current_a);
                }
                set(block, "TotWhInj", plant.injected_ws / 3_600);
                set(block, "TotWhAbs", plant.absorbed_ws / 3_600);
                set(block, "St", i64::from(connected));
                set(block, "ConnSt", i64::from(connected));
                set(
                    block,
                    "InvSt",
                    if !connected {
                        7
                    } else if throttled {
                        4
                    } else if running {
                        3
                    } else {
                        1
                    },
                );
                set(block, "ThrotPct", throttled_percent(operation));
            }
            713 => {
                put(block, "SoC", plant.state_of_charge() * 100.0);
                put(block, "WHAvail", plant.state_of_charge() * plant.capacity_wh as f64);
            }
            203 => {
                // A meter counts what is consumed as positive.
                put(block, "W", -power_w);
                put(block, "VA", apparent_va);
                put(block, "VAR", -reactive_var);
                put(block, "PF", factor.abs());
                put(block, "Hz", frequency_hz);
                put(block, "A", current_a * 3.0);
                put(block, "PhV", mean_v);
                for (index, phase) in ["A", "B", "C"].into_iter().enumerate() {
                    put(block, &format!("Wph{phase}"), -power_w / 3.0);
                    put(block, &format!("Aph{phase}"), current_a);
                    put(block, &format!("PhVph{phase}"), voltage_v[index]);
                }
                let [import_wh, export_wh] = operation.counted_wh;
                set(block, "TotWhImp", import_wh & 0xFFFF_FFFF);
                set(block, "TotWhExp", export_wh & 0xFFFF_FFFF);
            }
            _ => {}
        }
    }
}

/// A measured value, to the thousandth; what does not fit is left as it was.
fn put(block: &mut BlockImage, name: &str, value: f64) {
    let _ = block.set_number(name, Decimal::new((value * 1_000.0).round() as i128, -3));
}

fn throttled_percent(operation: &Operation) -> i64 {
    match operation.throttled {
        true => (100.0 - operation.power_w / operation.available_w.max(1.0) * 100.0).round() as i64,
        false => 0,
    }
}

/// Curves of each function: the one in use, and one to write to.
const CURVES: u16 = 2;
