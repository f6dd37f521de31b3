"""Validation and estimation of intervals (VEE), after the public rules of California and of the IESO.

Validation only flags; it changes no value. Checks, each on whole batches:

- gap: no value came;
- roll-over: a value below nought that the register's modulus explains; negative: one that it does not;
- spike: beyond `SPIKE` times the height that this series reaches in one interval of fifty, or beyond its fuse;
- stuck: one value, not nought, `STUCK` times in a row;
- register: the intervals do not sum to what the register moved. Where intervals are suspect themselves, the good ones
  must at least not sum to more;
- sum: the parts of a whole do not sum to it;
- clock: the meter's clock was more than `CLOCK_S` off.

Estimation is a ladder: like days where there are some and the gap is longer than `SHORT`, a line between the
neighbours, what one neighbour says, an even share of the register's total. Where the total is known, the estimates sum
to it exactly.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipss_headend.plugins import Batch, Context, Estimate, Flag, hook

SPIKE = 2.5
SPIKE_SHARE = 50
"""One interval in so many may be as high as it likes: the height is measured below them."""
LEAST = 10
"""Counts below which neither a spike nor a stuck value means anything."""
STUCK = 12
CLOCK_S = 60
TOLERANCE = 0.005
"""Of a sum, for what rounding and losses do; and one count for each interval of a whole's parts."""
SHORT = 2

Integers = NDArray[np.int64]
Words = NDArray[np.uint32]


@hook
def billing_validate_batch(ctx: Context, batch: Batch) -> None:
    """Flag what is wrong in a batch of intervals."""
    values, known, first = batch.numpy("values"), batch.numpy("known"), batch.numpy("first")
    flags = batch.numpy_flags()
    if not len(values):
        return
    lengths = np.diff(first)
    modulus = batch.numpy("modulus")
    _present(values, known, first, modulus, flags)
    corrected = _corrected(values, first, modulus, flags)
    _spikes(corrected, first, lengths, batch.numpy("limit"), flags)
    _stuck(corrected, first, flags)
    _registers(corrected, first, lengths, batch, flags)
    _sums(corrected, first, lengths, batch.numpy("parent"), flags)
    off = np.flatnonzero((np.abs(batch.numpy("clock_s")) > CLOCK_S) & (lengths > 0))
    _mark(flags, first, off, Flag.CLOCK)


def _mark(flags: Words, first: Integers, series: Integers, flag: Flag) -> None:
    for one in series:
        flags[first[one] : first[one + 1]] |= np.uint32(flag)


def _owner(first: Integers, places: Integers) -> Integers:
    return np.searchsorted(first, places, side="right") - 1


def _present(values: Integers, known: NDArray[np.uint8], first: Integers, modulus: Integers, flags: Words) -> None:
    if not known.all():
        flags[known == 0] |= np.uint32(Flag.GAP)
    if values.min() >= 0:
        return
    below = np.flatnonzero((values < 0) & (known != 0))
    end = modulus[_owner(first, below)]
    # Past its end the register begins again: the difference is short by one modulus.
    rolled = (end > 0) & (values[below] < -(end // 2)) & (values[below] > -end)
    flags[below[rolled]] |= np.uint32(Flag.ROLL_OVER)
    flags[below[~rolled]] |= np.uint32(Flag.NEGATIVE)


def _corrected(values: Integers, first: Integers, modulus: Integers, flags: Words) -> Integers:
    if not flags.any():
        return values
    corrected = np.where(flags & np.uint32(Flag.GAP | Flag.NEGATIVE), 0, values)
    rolled = np.flatnonzero(flags & np.uint32(Flag.ROLL_OVER))
    corrected[rolled] += modulus[_owner(first, rolled)]
    return corrected


def _spikes(values: Integers, first: Integers, lengths: Integers, limit: Integers, flags: Words) -> None:
    for length in np.unique(lengths):
        if length < 3:
            continue
        chosen = np.flatnonzero(lengths == length)
        if len(chosen) * length == len(values):
            rows = values.reshape(len(chosen), length)
        else:
            rows = values[first[chosen][:, None] + np.arange(length)]
        rank = max(2, length // SPIKE_SHARE)
        height = np.partition(rows, length - 1 - rank, axis=1)[:, length - 1 - rank]
        bound = np.maximum(height * SPIKE, LEAST)
        bound = np.where(limit[chosen] > 0, np.minimum(bound, limit[chosen]), bound)
        high = np.flatnonzero(rows.max(axis=1) > bound)
        for row in high:
            places = first[chosen[row]] + np.flatnonzero(rows[row] > bound[row])
            flags[places] |= np.uint32(Flag.SPIKE)


def _stuck(values: Integers, first: Integers, flags: Words) -> None:
    if len(values) < STUCK:
        return
    run = values[1:] == values[:-1]
    run &= values[1:] >= LEAST
    run[first[(first > 0) & (first < len(values))] - 1] = False  # a run ends with its series
    width = 1
    whole = run
    while width < STUCK - 1:
        step = min(width, STUCK - 1 - width)
        whole = whole[step:] & whole[:-step]
        width += step
    for start in np.flatnonzero(whole):
        flags[start : start + STUCK] |= np.uint32(Flag.STUCK)


def _registers(values: Integers, first: Integers, lengths: Integers, batch: Batch, flags: Words) -> None:
    begins, ends = batch.numpy("register_first"), batch.numpy("register_last")
    modulus = batch.numpy("modulus")
    asked = np.flatnonzero((begins >= 0) & (ends >= 0) & (lengths > 0))
    if not len(asked):
        return
    moved = ends[asked] - begins[asked]
    moved = np.where((moved < 0) & (modulus[asked] > 0), moved + modulus[asked], moved)
    suspect = (flags & np.uint32(Flag.GAP | Flag.NEGATIVE | Flag.SPIKE)) != 0
    any_suspect = bool(suspect.any())
    good = np.where(suspect, 0, values) if any_suspect else values
    sums = _sum_of(good, first, lengths)[asked]
    room = np.maximum(np.abs(moved) * TOLERANCE, 2)
    wrong = sums > moved + room
    whole = _sum_of(suspect, first, lengths)[asked] == 0 if any_suspect else np.ones(len(asked), bool)
    wrong |= whole & (sums < moved - room)
    _mark(flags, first, asked[wrong], Flag.REGISTER)


def _sum_of(values: NDArray[Any], first: Integers, lengths: Integers) -> Integers:
    filled = np.flatnonzero(lengths > 0)
    sums = np.zeros(len(lengths), np.int64)
    sums[filled] = np.add.reduceat(values, first[filled], dtype=np.int64)
    return sums


def _sums(values: Integers, first: Integers, lengths: Integers, parent: Integers, flags: Words) -> None:
    for whole in np.unique(parent[parent >= 0]):
        parts = np.flatnonzero(parent == whole)
        length = lengths[whole]
        if (lengths[parts] != length).any() or not length:
            continue
        span = np.arange(length)
        mine = slice(first[whole], first[whole + 1])
        places = first[parts][:, None] + span
        missing = np.uint32(Flag.GAP | Flag.NEGATIVE)
        sound = ((flags[places] & missing) == 0).all(axis=0) & ((flags[mine] & missing) == 0)
        total = values[places].sum(axis=0)
        room = np.maximum(np.abs(values[mine]) * TOLERANCE, len(parts))
        flags[mine][sound & (np.abs(total - values[mine]) > room)] |= np.uint32(Flag.SUM)


@hook
def billing_estimate(
    before: list[int], missing: int, after: list[int], like_days: list[list[int]], total: int | None
) -> Estimate | None:
    """Values for a gap, by the first step of the ladder that applies."""
    days = [day for day in like_days if len(day) == missing]
    if days and missing > SHORT:
        shape, method = [_middle(days, place) for place in range(missing)], "like-days"
    elif before and after:
        rise = (after[0] - before[-1]) / (missing + 1)
        shape, method = [before[-1] + rise * (place + 1) for place in range(missing)], "interpolated"
    elif before or after:
        shape, method = [float(before[-1] if before else after[0])] * missing, "neighbour"
    elif total is not None:
        shape, method = [1.0] * missing, "even"
    else:
        return None
    if total is None:
        return Estimate([round(value) for value in shape], method)
    return Estimate(_summing_to(shape, total), f"{method}, to the register")


def _middle(days: list[list[int]], place: int) -> float:
    """What like days had about this place: the median, so that one kettle on one day is nobody's habit."""
    return float(median([value for day in days for value in day[max(0, place - 1) : place + 2]]))


def _summing_to(shape: list[float], total: int) -> list[int]:
    """Whole numbers in these proportions whose sum is the total: the largest remainders get what is left."""
    weight = sum(shape)
    exact = [total * (value / weight if weight > 0 else 1 / len(shape)) for value in shape]
    found = [int(value // 1) for value in exact]
    order = sorted(range(len(shape)), key=lambda place: exact[place] - found[place], reverse=True)
    left = total - sum(found)
    for place in range(abs(left)):
        found[order[place % len(order)]] += 1 if left > 0 else -1
    return found
