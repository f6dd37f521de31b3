use proptest::prelude::*;

use super::*;
use crate::decimal::Decimal;

fn common(length: u16) -> Vec<u16> {
    let mut block = vec![1, length];
    block.extend("Maker\0\0\0".as_bytes().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
    block.resize(68, 0);
    block[66] = 7;
    block
}

fn chain_of(image: &[u16]) -> (Vec<Block>, Option<End>) {
    let (first, _) = first_header(image, 40_000).expect("SunS");
    let mut chain = Chain::new(image, first);
    let blocks = chain.by_ref().collect();
    (blocks, chain.end())
}

fn ids(blocks: &[Block]) -> Vec<u16> {
    blocks.iter().map(|block| block.id).collect()
}

fn inverter() -> BlockImage {
    BlockImage::new(103, &[]).expect("published")
}

#[test]
fn a_common_model_of_65_registers_is_followed_by_the_next() {
    let mut image = MARKER.to_vec();
    image.extend(&common(65)[..67]);
    image.extend(inverter().registers());
    image.extend([0xFFFF, 0]);

    let (blocks, end) = chain_of(&image);

    assert_eq!(ids(&blocks), [1, 103]);
    assert_eq!((blocks[0].oddity, end), (None, Some(End::Proper)));
}

#[test]
fn a_common_model_that_says_65_and_has_66_is_followed_by_the_next() {
    let mut image = MARKER.to_vec();
    image.extend(common(65));
    image.extend(inverter().registers());
    image.extend([0xFFFF, 0]);

    let (blocks, _) = chain_of(&image);

    assert_eq!(ids(&blocks), [1, 103]);
    assert_eq!((blocks[0].oddity, blocks[0].span), (Some(Oddity::OneMore), 68));
}

#[test]
fn a_length_that_counts_the_header_is_found_out() {
    let mut odd = inverter();
    odd.write(1, &[52]);
    let image = device(&[odd, BlockImage::new(120, &[]).expect("published")]);

    let (blocks, end) = chain_of(&image);

    assert_eq!(ids(&blocks), [103, 120]);
    assert_eq!((blocks[0].oddity, blocks[0].span), (Some(Oddity::LengthCountsHeader), 52));
    assert_eq!(end, Some(End::Proper));
}

#[test]
fn an_end_model_of_zero_and_a_missing_one_end_the_chain() {
    let mut image = device(&[inverter()]);
    let end = image.len() - 2;
    image[end..].fill(0);
    assert_eq!(chain_of(&image).1, Some(End::Zero));

    image.truncate(end);
    assert_eq!(
        chain_of(&image),
        (vec![Block { id: 103, offset: 2, declared: 50, span: 52, oddity: None }], Some(End::Missing))
    );

    image.truncate(end - 1);
    assert_eq!(chain_of(&image).1, Some(End::Cut));
}

#[test]
fn a_device_that_is_shifted_by_one_register_is_found() {
    let mut image = vec![0];
    image.extend(device(&[inverter()]));

    assert_eq!(first_header(&image, 40_000), Some((3, 1)));
    assert_eq!(first_header(&image[1..], 40_000), Some((2, 0)));
    assert_eq!(first_header(&image, 39_999), Some((3, 0)));
    assert_eq!(first_header(&[0x5375], 0), None);
}

#[test]
fn an_unknown_model_is_passed_over() {
    let mut image = MARKER.to_vec();
    image.extend([64_999, 3, 1, 2, 3]);
    image.extend(inverter().registers());
    image.extend([0xFFFF, 0]);

    assert_eq!(ids(&chain_of(&image).0), [64_999, 103]);
}

#[test]
fn a_scale_factor_that_is_not_implemented_leaves_the_value_unscaled_and_says_so() {
    let mut block = inverter();
    block.set("W", &Value::Integer(1_234)).expect("a point");
    let ask = |place: &Place<'_>| (place.status(&place.value()), place.number(&place.value()));

    assert_eq!(block.with("W", ask), Ok((Status::ScaleUnknown, Some(Decimal::new(1_234, 0)))));

    block.set("W_SF", &Value::Integer(11)).expect("a point");
    assert_eq!(block.with("W", ask).map(|asked| asked.0), Ok(Status::ScaleUnknown));

    block.set("W_SF", &Value::Integer(-2)).expect("a point");
    assert_eq!(block.with("W", ask), Ok((Status::Good, Some(Decimal::new(1_234, -2)))));
}

#[test]
fn the_other_types_sentinel_is_told_and_kept() {
    let mut block = inverter();
    let offset = block.with("A", |place| place.offset).expect("a point");
    block.write(offset, &[0x8000]);

    let said = block.with("A", |place| (place.value(), place.status(&place.value())));

    assert_eq!(said, Ok((Value::Integer(32_768), Status::Doubtful)));
}

#[test]
fn nested_groups_have_their_places() {
    let mut block = BlockImage::new(705, &[("NCrv", 2), ("NPt", 4)]).expect("published");
    block.set("V_SF", &Value::Integer(-1)).expect("a point");
    block.set_number("Crv[2].Pt[4].V", Decimal::new(1_075, -1)).expect("a point");

    assert_eq!(block.number("Crv[2].Pt[4].V"), Ok(Some(Decimal::new(1_075, -1))));
    assert_eq!(block.get("Crv[2].Pt[4].Var"), Ok(Value::NotImplemented));
    assert!(block.get("Crv[3].Pt[1].V").is_err());
    assert!(block.get("Crv[2].Pt[5].V").is_err());
    let synchronised = BlockImage::new(704, &[]).expect("published");
    assert_eq!(synchronised.get("PFWInj.PF"), Ok(Value::NotImplemented));
}

#[test]
fn a_set_point_is_written_exactly_or_refused() {
    let mut block = BlockImage::new(123, &[]).expect("published");
    block.set("WMaxLimPct_SF", &Value::Integer(-1)).expect("a point");

    let write = block.write_of("WMaxLimPct", Decimal::new(605, -1)).expect("can be said");
    let too_fine = block.write_of("WMaxLimPct", Decimal::new(6_055, -2)).expect_err("too fine");

    assert_eq!(write.registers, [605]);
    assert_eq!(block.with("WMaxLimPct", |place| place.offset), Ok(write.offset));
    assert!(too_fine.to_string().contains("in steps of 0.1"), "{too_fine}");
    assert!(
        block
            .write_of("WMaxLimPct_SF", Decimal::new(1, 0))
            .expect_err("read only")
            .to_string()
            .contains("only be read")
    );
    assert!(block.write_of("WMaxLimPct", Decimal::new(7_000, 0)).is_err());
    assert!(block.write_of("None", Decimal::new(7_000, 0)).is_err());
}

/// A device of registers, some of which it refuses.
fn discover(first: u16, image: &[u16], most: u16) -> (Progress, usize) {
    let mut discovery = Discovery::new(125);
    for asked in 0..10_000 {
        let Progress::Ask(read) = discovery.progress() else { return (discovery.progress(), asked) };
        let from = usize::from(read.address).checked_sub(usize::from(first));
        let registers = from.and_then(|from| image.get(from..from + usize::from(read.count)));
        discovery.answered(registers.filter(|registers| registers.len() <= usize::from(most)));
    }
    panic!("discovery goes on for ever");
}

#[test]
fn discovery_finds_every_model_at_every_base() {
    let image = device(&[
        inverter(),
        BlockImage::new(160, &[("module", 6)]).expect("published"),
        BlockImage::new(123, &[]).expect("published"),
    ]);
    for base in [0, 1, 39_999, 40_000, 40_001, 50_000] {
        let (Progress::Found(found, blocks), asked) = discover(base, &image, 125) else {
            panic!("not found at {base}")
        };

        assert_eq!((found, ids(&blocks)), (base, vec![103, 160, 123]));
        assert!(asked < 20, "{asked} questions");
    }
    assert_eq!(discover(100, &image, 125).0, Progress::NotSunSpec);
}

#[test]
fn discovery_asks_for_less_where_a_device_refuses_much_and_ends_without_an_end_model() {
    let image = device(&[inverter(), BlockImage::new(123, &[]).expect("published")]);
    let without_end = &image[..image.len() - 2];

    let (Progress::Found(_, blocks), _) = discover(40_000, without_end, 10) else { panic!("not found") };

    assert_eq!(ids(&blocks), [103, 123]);
}

proptest! {
    #[test]
    fn whatever_registers_come_nothing_panics_and_work_is_bounded(image in prop::collection::vec(any::<u16>(), 0..400), id in prop::sample::select(model_ids().collect::<Vec<_>>())) {
        let mut marked = MARKER.to_vec();
        marked.push(id);
        marked.extend(&image);
        let (blocks, _) = chain_of(&marked);
        prop_assert!(blocks.len() <= marked.len());
        for block in blocks {
            let Some(known) = model(block.id) else { continue };
            let mut points = 0;
            let walked = walk(known, block.registers(&marked), &mut |place| {
                points += 1;
                assert_eq!(place.registers().len(), usize::from(place.point.size));
                let value = place.value();
                let _ = (place.status(&value), place.number(&value), place.name());
            });
            prop_assert!(points <= walked.used.max(known.group.points.len()));
        }
    }

    #[test]
    fn every_value_goes_into_its_registers_and_back(registers in prop::collection::vec(any::<u16>(), 150), id in prop::sample::select(model_ids().collect::<Vec<_>>())) {
        fn all(group: &'static Group) -> Vec<&'static Point> {
            group.points.iter().chain(group.groups.iter().flat_map(all)).collect()
        }
        for point in all(&model(id).expect("published").group) {
            let value = point.decode(&registers[..usize::from(point.size)]).expect("enough registers");
            let mut back = Vec::new();
            // Text that was no text is no longer what it was, and may be longer.
            if point.encode(&value, &mut back).is_ok() {
                let again = point.decode(&back).expect("enough registers");
                prop_assert_eq!(again, value);
            } else {
                prop_assert_eq!(point.kind, PointType::Text);
            }
        }
    }

    #[test]
    fn discovery_ends_whatever_a_device_says(answers in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u16>(), 0..130)), 0..60)) {
        let mut discovery = Discovery::new(125);
        discovery.answered(None);
        discovery.answered(Some(&MARKER));
        let mut answers = answers.into_iter();
        for _ in 0..70_000 {
            let Progress::Ask(_) = discovery.progress() else { break };
            discovery.answered(answers.next().flatten().as_deref());
        }
        prop_assert!(!matches!(discovery.progress(), Progress::Ask(_)));
    }
}
