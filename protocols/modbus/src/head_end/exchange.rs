//! Questions and answers.

use ipss_session::{Cell, Context, EventKind, Instant, Line, Outcome, WallTime};

use super::work::width;
use super::{Ghost, HeadEnd, Item, Job, MAX_GHOSTS, Question, REPORT_EVERY, Read, Todo, Unit};
use crate::function::{self, EXCEPTION, Exception};
use crate::group::{self, Span};
use crate::pdu::{Bits, Extent, RequestPdu, response_extent, u16_at};
use crate::profile::Framing;

impl HeadEnd {
    /// The unit's state; made when it is first asked.
    fn unit(&mut self, id: u8) -> &mut Unit {
        let place = match self.units.binary_search_by_key(&id, |unit| unit.id) {
            Ok(place) => place,
            Err(place) => {
                self.units.insert(place, Unit::new(id, &self.profile));
                place
            }
        };
        &mut self.units[place]
    }

    /// Prepare the job's item, or the next that has anything to ask; false if there is none.
    pub(super) fn begin_item(&mut self, job: &mut Job) -> bool {
        let plan = job.request.work.plan.clone();
        job.refused.clear();
        job.narrow.clear();
        job.octets.clear();
        let wide = if self.profile.quirks.wide_registers { 2 } else { 1 };
        match plan.items.get(usize::from(job.item)) {
            None => return false,
            Some(Item::Read(read)) => {
                job.octets.resize(read.octets * wide, 0);
                let mut rules = self.unit(job.request.work.unit).rules();
                if wide > 1 {
                    // Registers of unequal size are read apart.
                    rules.max_gap = 0;
                }
                let blocks = group::blocks(&read.spans, &rules);
                job.todo.extend(blocks.into_iter().rev().map(|block| Todo { block: Some(block), tries: 0, busy: 0 }));
            }
            Some(Item::Ask(_)) => job.todo.push(Todo { block: None, tries: 0, busy: 0 }),
        }
        true
    }

    /// Whether answers do not name their request and one to this unit may still come.
    fn haunted(&self, unit: u8) -> Option<Instant> {
        if self.profile.is_tagged() {
            return None;
        }
        let any = self.profile.quirks.unit_id_not_echoed;
        self.ghosts.iter().filter(|ghost| any || ghost.unit == unit).map(|ghost| ghost.until).max()
    }

    /// When the job's next question may be sent; `None` if it has none, or its unit has as many as it may.
    fn sendable(&self, job: &Job) -> Option<Instant> {
        let id = job.request.work.unit;
        if job.todo.is_empty() {
            return None;
        }
        let asked = self.wire.iter().filter(|question| question.unit == id).count();
        if asked >= usize::from(self.profile.in_flight_per_unit.max(1)).min(self.profile.in_flight()) {
            return None;
        }
        let paced = self.units.iter().find(|unit| unit.id == id).map_or(Instant::ORIGIN, |unit| unit.not_before);
        Some(self.next_send.max(job.not_before).max(paced).max(self.haunted(id).unwrap_or(Instant::ORIGIN)))
    }

    /// When the next question may be sent, if there is one.
    pub(super) fn next_sendable(&self) -> Option<Instant> {
        self.jobs.iter().filter_map(|job| self.sendable(job)).min()
    }

    /// Send what may be sent: the most urgent first, then whose job waited longest.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        self.ghosts.retain(|ghost| ghost.until > now);
        while self.up && self.wire.len() < self.profile.in_flight() {
            let due = |(_, job): &(usize, &Job)| self.sendable(job).is_some_and(|at| at <= now);
            let order = |(_, job): &(usize, &Job)| (std::cmp::Reverse(job.request.priority), job.served, job.serial);
            let Some((place, _)) = self.jobs.iter().enumerate().filter(due).min_by_key(order) else { return };
            self.send(place, cx);
        }
    }

    fn send(&mut self, place: usize, cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        let profile = self.profile.clone();
        let mut plain = Vec::new();
        let job = &mut self.jobs[place];
        let id = job.request.work.unit;
        let broadcast = id == 0 && profile.unit_zero_broadcasts();
        let Some(todo) = job.todo.pop() else { return };
        let pdu = match (job.item(), todo.block) {
            (Some(Item::Ask(ask)), _) => ask.pdu(),
            (_, Some(Span { table, address, count })) => {
                // A block is made under the specification's limits.
                let _ = RequestPdu::Read { table, address, quantity: count }.encode(&mut plain);
                &plain[..]
            }
            _ => return,
        };
        let function = pdu.first().copied().unwrap_or_default();
        if broadcast && (function::only_reads(pdu) || job.item().is_some_and(|item| matches!(item, Item::Read(_)))) {
            let job = self.jobs.swap_remove(place);
            let detail = "unit 0 is all units here, and nobody answers: it can only be written";
            self.finished.push_back((job.request, Outcome::Impossible, detail.into()));
            return;
        }
        let transaction = self.next_transaction;
        self.next_transaction = transaction.wrapping_add(1);
        let before = cx.to_send.len();
        self.line.write(transaction, id, pdu, &profile, cx.to_send);
        let length = answer_length(pdu);
        let mut on_the_way = std::time::Duration::ZERO;
        if let Framing::Rtu(timing) = profile.framing {
            let answer = length.map_or(crate::adu::rtu::MAX_ADU, |length| length + 3);
            on_the_way = timing.characters(cx.to_send.len() - before + answer);
        }
        job.served = now;
        job.wrote |= job.writes();
        if broadcast {
            self.next_send = now + on_the_way + profile.turnaround.max(profile.gap);
            self.item_done(place, None, cx);
            return;
        }
        job.open += 1;
        self.wire.push(Question {
            transaction,
            unit: id,
            function,
            length,
            deadline: now + on_the_way + profile.answer,
            job: job.serial,
            todo,
        });
        self.next_send = now + profile.gap;
        self.unit(id).not_before = now + profile.interval;
    }

    /// A frame came: whose answer is it?
    pub(super) fn take_answer(&mut self, transaction: Option<u16>, unit: u8, pdu: &[u8], cx: &mut Context<'_>) {
        let tagged = self.profile.is_tagged();
        let units_told = !self.profile.quirks.unit_id_not_echoed;
        let code = pdu.first().copied().unwrap_or_default();
        let matches = |question: &Question| {
            let named = !tagged || transaction == Some(question.transaction);
            // Function 80 is an exception that does not name its function.
            let function = code == question.function || code == question.function | EXCEPTION || code == EXCEPTION;
            named && (!units_told || unit == question.unit) && function
        };
        let Some(place) = self.wire.iter().position(matches) else { return self.drop_answer(transaction, unit, cx) };
        let question = &self.wire[place];
        // Without transaction ids, only the length tells an answer from that to another question.
        let strange =
            code == question.function && question.length.is_some_and(|length| !self.length_fits(question, pdu, length));
        if strange && !tagged {
            return self.drop_answer(transaction, unit, cx);
        }
        let question = self.wire.swap_remove(place);
        self.next_send = self.next_send.max(cx.now.monotonic + self.profile.gap);
        if pdu != [code, Exception::GATEWAY_TARGET_FAILED.0] {
            self.unit(question.unit).answered();
        }
        let Some(place) = self.jobs.iter().position(|job| job.serial == question.job) else {
            // Nobody wants it any more.
            self.counters.late += 1;
            return;
        };
        self.jobs[place].open -= 1;
        self.jobs[place].request.exchanges += 1;
        if code & EXCEPTION != 0 {
            let exception = Exception(pdu.get(1).copied().unwrap_or_default());
            return match pdu.len() {
                2 => self.take_exception(place, question, exception, cx),
                _ => self.violated(place, &format!("an exception of {} octets", pdu.len()), cx),
            };
        }
        if strange {
            return self.violated(place, &format!("an answer of {} octets to another question", pdu.len()), cx);
        }
        match question.todo.block {
            Some(block) => self.take_block(place, block, pdu, cx),
            None => match self.take_other(place, pdu) {
                Ok(()) => self.item_done(place, Some(&pdu[1..]), cx),
                Err(message) => self.violated(place, message, cx),
            },
        }
    }

    fn length_fits(&self, question: &Question, pdu: &[u8], length: usize) -> bool {
        let quirks = &self.profile.quirks;
        let is_read = matches!(question.function, function::READ_COILS..=function::READ_INPUT_REGISTERS)
            || question.function == function::READ_WRITE_MULTIPLE_REGISTERS;
        let length = if quirks.wide_byte_count && is_read { length + 1 } else { length };
        let wide = length + (length - 2);
        let found = pdu.len();
        let told = match response_extent(pdu, quirks.wide_byte_count) {
            Extent::Known(length) => length == found,
            Extent::Open => true,
            Extent::More => false,
        };
        told && (found == length || quirks.wide_registers && is_read && found == wide)
    }

    /// Nobody asked for this, or not any more.
    fn drop_answer(&mut self, transaction: Option<u16>, unit: u8, cx: &mut Context<'_>) {
        let tagged = self.profile.is_tagged();
        let ghost = self
            .ghosts
            .iter()
            .position(|ghost| if tagged { transaction == Some(ghost.transaction) } else { ghost.unit == unit });
        match ghost {
            Some(place) => {
                self.ghosts.swap_remove(place);
                self.counters.late += 1;
            }
            None => self.counters.unexpected += 1,
        }
        let now = cx.now.monotonic;
        if self.dropped_reported.is_none_or(|at| at + REPORT_EVERY <= now) {
            self.dropped_reported = Some(now);
            let Self { counters, .. } = self;
            let detail =
                format!("{} late, {} unexpected so far; the last from unit {unit}", counters.late, counters.unexpected);
            let number = (counters.late + counters.unexpected) as i64;
            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, number, detail);
        }
    }

    /// The device broke its protocol in an answer to this job.
    fn violated(&mut self, place: usize, message: &str, cx: &mut Context<'_>) {
        let job = self.jobs.swap_remove(place);
        let meter = job.request.work.meter;
        cx.batch.event(meter, cx.now.wall, EventKind::ProtocolViolation, 0, message);
        let outcome = if job.writes() { Outcome::Unknown } else { Outcome::Violation };
        self.finished.push_back((job.request, outcome, message.to_owned()));
    }

    /// Coils or registers for a read.
    fn take_block(&mut self, place: usize, block: Span, pdu: &[u8], cx: &mut Context<'_>) {
        let quirks = self.profile.quirks;
        let data = pdu.get(if quirks.wide_byte_count { 3 } else { 2 }..).unwrap_or_default();
        let job = &mut self.jobs[place];
        let plan = job.request.work.plan.clone();
        let Some(Item::Read(read)) = plan.items.get(usize::from(job.item)) else { return };
        let scale = if quirks.wide_registers { 2 } else { 1 };
        let wide = scale > 1 && data.len() == block.table.octets(block.count) * 2;
        if scale > 1 && !wide && !block.table.is_bits() {
            job.narrow.push(block);
        }
        for (span, start) in read.spans.iter().zip(&read.starts) {
            let Some(part) = block.overlap(*span) else { continue };
            let from = usize::from(part.address - block.address);
            let to = start * scale + usize::from(part.address - span.address) * width(span.table) * scale;
            if span.table.is_bits() {
                let bits = Bits::new(data, usize::from(block.count));
                for (index, bit) in bits.iter().skip(from).take(usize::from(part.count)).enumerate() {
                    job.octets[to + index * scale] = u8::from(bit);
                }
                continue;
            }
            let size = if wide { 4 } else { 2 };
            let octets = &data[from * size..(from + usize::from(part.count)) * size];
            if size == 2 * scale {
                job.octets[to..to + octets.len()].copy_from_slice(octets);
            } else {
                for (index, register) in octets.chunks_exact(2).enumerate() {
                    job.octets[to + index * 4..to + index * 4 + 2].copy_from_slice(register);
                }
            }
        }
        let unit = job.request.work.unit;
        self.unit(unit).read(block);
        self.part_done(place, cx);
    }

    /// Check the answer to a single question against it.
    fn take_other(&self, place: usize, pdu: &[u8]) -> Result<(), &'static str> {
        let Some(Item::Ask(ask)) = self.jobs[place].item() else { return Ok(()) };
        let echoed = match ask.pdu() {
            [
                function::WRITE_SINGLE_COIL
                | function::WRITE_SINGLE_REGISTER
                | function::MASK_WRITE_REGISTER
                | function::WRITE_FILE_RECORD
                | function::DIAGNOSTICS,
                ..,
            ] if !ask.only_reads() => ask.pdu(),
            [function::WRITE_MULTIPLE_COILS | function::WRITE_MULTIPLE_REGISTERS, ..] => &ask.pdu()[..5],
            _ => return crate::pdu::ResponsePdu::decode(pdu).map(|_| ()).map_err(|_| "an answer that is malformed"),
        };
        if pdu == echoed { Ok(()) } else { Err("the answer confirms another write than was asked for") }
    }

    /// The device's own *no*.
    fn take_exception(&mut self, place: usize, question: Question, exception: Exception, cx: &mut Context<'_>) {
        let profile = self.profile.clone();
        let now = cx.now.monotonic;
        let id = question.unit;
        let job = &mut self.jobs[place];
        let gateway = exception == Exception::GATEWAY_TARGET_FAILED;
        if job.writes() {
            // Accepted but not done yet, or lost behind a gateway: nobody knows.
            let unknown = gateway || exception == Exception::ACKNOWLEDGE;
            if unknown {
                let job = self.jobs.swap_remove(place);
                let detail = format!("exception {}: {}", exception.0, exception.name().unwrap_or_default());
                self.finished.push_back((job.request, Outcome::Unknown, detail));
                return;
            }
            return self.refused(place, question.todo, exception, cx);
        }
        let Todo { block, busy, .. } = question.todo;
        match exception {
            Exception::ACKNOWLEDGE | Exception::SERVER_DEVICE_BUSY if busy < profile.busy_retries => {
                job.not_before = now + profile.busy;
                job.todo.push(Todo { busy: busy + 1, ..question.todo });
            }
            Exception::GATEWAY_TARGET_FAILED => {
                if let Some(block) = block.filter(|block| self.unit(id).shrink(*block)) {
                    return self.split(place, block);
                }
                if busy < profile.busy_retries && self.unit(id).failures == 0 {
                    let job = &mut self.jobs[place];
                    job.not_before = now + profile.busy;
                    job.todo.push(Todo { busy: busy + 1, ..question.todo });
                    return;
                }
                self.unit(id).grow_back(&profile);
                self.refused(place, question.todo, exception, cx);
                self.unit_silent(id, cx);
            }
            Exception::ILLEGAL_DATA_ADDRESS | Exception::ILLEGAL_DATA_VALUE | Exception::SERVER_DEVICE_FAILURE => {
                let Some(block) = block else { return self.refused(place, question.todo, exception, cx) };
                if !self.bisect(place, block, exception) {
                    self.refused(place, question.todo, exception, cx);
                }
            }
            _ => self.refused(place, question.todo, exception, cx),
        }
    }

    /// Ask for the spans of a refused block in smaller blocks; false if it cannot be made smaller.
    fn bisect(&mut self, place: usize, block: Span, exception: Exception) -> bool {
        let job = &self.jobs[place];
        let id = job.request.work.unit;
        let plan = job.request.work.plan.clone();
        let Some(Item::Read(read)) = plan.items.get(usize::from(job.item)) else { return false };
        let wanted: Vec<Span> = read.spans.iter().filter_map(|span| span.overlap(block)).collect();
        let covered: u32 = {
            let mut end = u32::from(block.address);
            wanted
                .iter()
                .map(|span| {
                    let from = end.max(u32::from(span.address));
                    end = end.max(span.end());
                    end.saturating_sub(from)
                })
                .sum()
        };
        if covered < u32::from(block.count) && self.unit(id).close_gaps() {
            self.split(place, block);
            return true;
        }
        if let Some([first, second]) = group::halves(block, &wanted) {
            self.unit(id).cut(second.table, second.address);
            let todos = [second, first].map(|block| Todo { block: Some(block), tries: 0, busy: 0 });
            self.jobs[place].todo.extend(todos);
            return true;
        }
        // One span: perhaps it is only too long for this device.
        if exception == Exception::ILLEGAL_DATA_VALUE && self.unit(id).shrink(block) {
            self.split(place, block);
            return true;
        }
        false
    }

    /// Ask for the wanted parts of a block under the unit's present limits.
    fn split(&mut self, place: usize, block: Span) {
        let job = &self.jobs[place];
        let id = job.request.work.unit;
        let plan = job.request.work.plan.clone();
        let Some(Item::Read(read)) = plan.items.get(usize::from(job.item)) else { return };
        let wanted: Vec<Span> = read.spans.iter().filter_map(|span| span.overlap(block)).collect();
        let smaller = group::blocks(&wanted, &self.unit(id).rules());
        let todos = smaller.into_iter().rev().map(|block| Todo { block: Some(block), tries: 0, busy: 0 });
        self.jobs[place].todo.extend(todos);
    }

    fn refused(&mut self, place: usize, todo: Todo, exception: Exception, cx: &mut Context<'_>) {
        let job = &mut self.jobs[place];
        job.any_refused = true;
        cx.batch.refusals.push(ipss_session::batch::Refusal {
            meter: job.request.work.meter,
            request: job.request.id,
            item: job.item,
            code: exception.0,
        });
        match todo.block {
            Some(block) => {
                job.refused.push((block, exception.0));
                self.part_done(place, cx);
            }
            None => self.next_item(place),
        }
    }

    /// A block of a read was answered: the line is complete when no other is due.
    fn part_done(&mut self, place: usize, cx: &mut Context<'_>) {
        let job = &self.jobs[place];
        if !job.todo.is_empty() || job.open > 0 {
            return;
        }
        let plan = job.request.work.plan.clone();
        let Some(Item::Read(read)) = plan.items.get(usize::from(job.item)) else { return };
        let wide = self.profile.quirks.wide_registers;
        for cell in &read.cells {
            let job = &self.jobs[place];
            if job.refused.iter().any(|(block, _)| block.overlap(cell.part).is_some()) {
                cx.batch.push_cell(Cell::Null);
            } else if !wide {
                cell.decode.push(&job.octets[cell.start..cell.start + cell.octets], cx.batch);
            } else {
                cell.decode.push(&wide_value(job, cell), cx.batch);
            }
        }
        let line = row(&self.jobs[place], read.layout);
        cx.batch.close_line(line);
        self.next_item(place);
    }

    /// An item that is one question was answered (or, as a broadcast, sent).
    fn item_done(&mut self, place: usize, data: Option<&[u8]>, cx: &mut Context<'_>) {
        let job = &self.jobs[place];
        let cell = data.filter(|_| !confirms_only(job)).map(Cell::Raw);
        cx.batch.push_line(row(job, 0), cell);
        self.next_item(place);
    }

    fn next_item(&mut self, place: usize) {
        let mut job = self.jobs.swap_remove(place);
        job.item += 1;
        if self.begin_item(&mut job) {
            self.jobs.push(job);
            return;
        }
        let outcome = if job.any_refused { Outcome::Refused } else { Outcome::Done };
        self.finished.push_back((job.request, outcome, String::new()));
    }

    /// Questions whose time is over.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        while let Some(place) = self.wire.iter().position(|question| question.deadline <= now) {
            let question = self.wire.swap_remove(place);
            self.counters.unanswered += 1;
            self.silence = self.silence.saturating_add(1);
            if self.ghosts.len() >= MAX_GHOSTS {
                self.ghosts.swap_remove(0);
            }
            let until = now + self.profile.late;
            self.ghosts.push(Ghost { transaction: question.transaction, unit: question.unit, until });
            let rests = self.unit_silent(question.unit, cx);
            let Some(place) = self.jobs.iter().position(|job| job.serial == question.job) else { continue };
            let job = &mut self.jobs[place];
            job.open -= 1;
            let Todo { tries, .. } = question.todo;
            if !job.writes() && tries < self.profile.retries && !rests {
                job.todo.push(Todo { tries: tries + 1, ..question.todo });
                continue;
            }
            let job = self.jobs.swap_remove(place);
            let outcome = if job.writes() { Outcome::Unknown } else { Outcome::TimedOut };
            let detail = format!("unit {} gave no answer, asked {} times", question.unit, u16::from(tries) + 1);
            self.finished.push_back((job.request, outcome, detail));
        }
    }

    /// A unit did not answer: beside others it rests after some time. Says whether it does.
    fn unit_silent(&mut self, id: u8, cx: &mut Context<'_>) -> bool {
        let shared = self.profile.shared || self.units.len() > 1;
        let profile = self.profile.clone();
        let Some(rest) = self.unit(id).silent(&profile, shared, cx.now.monotonic, cx.random) else { return false };
        let detail = format!("unit {id} is silent");
        let seconds = rest.as_secs() as i64;
        let meter =
            self.jobs.iter().find(|job| job.request.work.unit == id).map_or(self.meter, |job| job.request.work.meter);
        cx.batch.event(meter, cx.now.wall, EventKind::BackedOff, seconds, detail);
        // What else waits for it would wait for nothing. What is on the wire for it ends by itself.
        let mut place = 0;
        while place < self.jobs.len() {
            if self.jobs[place].request.work.unit == id
                && self.jobs[place].open == 0
                && !self.jobs[place].todo.is_empty()
            {
                let job = self.jobs.swap_remove(place);
                let detail = format!("unit {id} is silent; it is asked again in {seconds} s");
                self.finished.push_back((job.request, Outcome::TimedOut, detail));
            } else {
                place += 1;
            }
        }
        true
    }
}

/// Octets of the answer to this question, if it tells.
fn answer_length(pdu: &[u8]) -> Option<usize> {
    let quantity = u16_at(pdu, 3);
    match *pdu.first()? {
        code @ function::READ_COILS..=function::READ_INPUT_REGISTERS => {
            let table = crate::pdu::Table::of_function(code)?;
            Some(2 + table.octets(quantity?))
        }
        function::READ_WRITE_MULTIPLE_REGISTERS => Some(2 + 2 * usize::from(quantity?)),
        function::DIAGNOSTICS | function::WRITE_FILE_RECORD => Some(pdu.len()),
        function::READ_FILE_RECORD => {
            let groups = pdu.get(2..)?.chunks_exact(7);
            Some(2 + groups.map(|group| 2 + 2 * usize::from(u16::from_be_bytes([group[5], group[6]]))).sum::<usize>())
        }
        _ => match response_extent(pdu, false) {
            Extent::Known(length) if pdu.len() >= 5 => Some(length),
            _ => None,
        },
    }
}

/// The head of a row of the job's item.
fn row(job: &Job, layout: u32) -> Line {
    Line {
        meter: job.request.work.meter,
        request: job.request.id,
        item: job.item,
        layout,
        capture_time: WallTime::UNKNOWN,
        deviation: Line::NO_DEVIATION,
        clock_status: 0xFF,
    }
}

/// Whether the answer to a single question says no more than that a write was done.
fn confirms_only(job: &Job) -> bool {
    let Some(Item::Ask(ask)) = job.item() else { return false };
    matches!(
        ask.pdu().first(),
        Some(
            &(function::WRITE_SINGLE_COIL
                | function::WRITE_SINGLE_REGISTER
                | function::WRITE_MULTIPLE_COILS
                | function::WRITE_MULTIPLE_REGISTERS
                | function::MASK_WRITE_REGISTER
                | function::WRITE_FILE_RECORD)
        )
    )
}

/// The octets of a cell where registers may have 32 bits: as many as its registers really had.
fn wide_value(job: &Job, cell: &super::work::Place) -> Vec<u8> {
    let octets = &job.octets[cell.start * 2..(cell.start + cell.octets) * 2];
    if cell.part.table.is_bits() {
        return octets.chunks_exact(2).map(|pair| pair[0]).collect();
    }
    let narrow = job.narrow.iter().any(|block| block.overlap(cell.part).is_some());
    let size = if narrow { 2 } else { 4 };
    octets.chunks_exact(4).flat_map(|register| register[..size].iter().copied()).collect()
}

impl Read {
    /// Octets of all its registers and coils.
    pub fn octets(&self) -> usize {
        self.octets
    }
}
