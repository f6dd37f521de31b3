"""What validation may say of an interval."""

from enum import IntFlag


class Flag(IntFlag):
    """Flags of an interval; they are added and never taken away."""

    GAP = 1
    """No value came."""
    SPIKE = 2
    """Far above what this series does."""
    NEGATIVE = 4
    """Energy cannot be negative."""
    ROLL_OVER = 8
    """The register went through its end here; the value is corrected by its modulus."""
    SUM = 16
    """The parts do not sum to their whole in this interval."""
    REGISTER = 32
    """The intervals do not sum to the difference of the register's readings."""
    CLOCK = 64
    """The meter's clock was too far off."""
    STUCK = 128
    """The same value, not nought, for so long that it is no measurement."""
    ESTIMATED = 256
    """Not measured: the value was estimated."""
    EDITED = 512
    """A person gave the value; it goes before what was read."""


def flag_names(word: int) -> list[str]:
    """Flags as other systems see them: `gap`, `roll-over`, ...; bits of a plugin's own as `bit-9`."""
    known = {flag.value.bit_length() - 1: (flag.name or "").lower().replace("_", "-") for flag in Flag}
    return [known.get(bit, f"bit-{bit}") for bit in range(32) if word >> bit & 1]
