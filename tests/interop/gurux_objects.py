"""What the gurux-dlms meter holds. Runs in `.venv-gurux` only."""

from __future__ import annotations

import datetime as dt
from typing import Any

from gurux_dlms.enums import DataType
from gurux_dlms.GXDateTime import GXDateTime
from gurux_dlms.objects import (
    GXDLMSAssociationLogicalName,
    GXDLMSClock,
    GXDLMSData,
    GXDLMSDemandRegister,
    GXDLMSDisconnectControl,
    GXDLMSExtendedRegister,
    GXDLMSProfileGeneric,
    GXDLMSRegister,
    GXDLMSSapAssignment,
)
from gurux_dlms.objects.enums import ControlMode, ControlState, SortMethod

COUNTER_NAME = "0.0.43.1.0.255"
CLOCK_NAME = "0.0.1.0.0.255"
# The meter's local time: an hour ahead of UTC all year, deviation -60 on the wire.
ZONE = dt.timezone(dt.timedelta(hours=1))
PROFILE_BEGIN = dt.datetime(2026, 3, 1, 0, 0, tzinfo=ZONE)
PROFILE_PERIOD_S = 900


def build_objects(lines: int, title: bytes) -> tuple[dict[tuple[int, str], Any], GXDLMSProfileGeneric]:
    """The meter's objects by class and logical name, and its load profile."""
    name = GXDLMSData("0.0.42.0.0.255")
    name.value = bytearray(b"GRX" + title.hex().upper()[-8:].encode())
    name.setDataType(2, DataType.OCTET_STRING)

    counter = GXDLMSData(COUNTER_NAME)
    counter.setDataType(2, DataType.UINT32)

    registers = []
    for logical_name, value, unit in [
        ("1.0.1.8.0.255", 12345678, 30),
        ("1.0.2.8.0.255", 4711, 30),
        ("1.0.3.8.0.255", 98765, 32),
        ("1.0.4.8.0.255", 13, 32),
    ]:
        register = GXDLMSRegister(logical_name)
        register.value, register.scaler, register.unit = value, 1, unit
        register.setDataType(2, DataType.UINT32)
        registers.append(register)
    voltage = GXDLMSRegister("1.0.32.7.0.255")
    voltage.value, voltage.scaler, voltage.unit = 2304, 0.1, 35
    voltage.setDataType(2, DataType.UINT16)

    maximum = GXDLMSExtendedRegister("1.0.1.6.0.255")
    maximum.value, maximum.scaler, maximum.unit, maximum.status = 8123, 1, 27, 0
    maximum.captureTime = GXDateTime(PROFILE_BEGIN + dt.timedelta(hours=18, minutes=15))
    maximum.setDataType(2, DataType.UINT32)
    maximum.setDataType(4, DataType.UINT8)

    demand = GXDLMSDemandRegister("1.0.1.4.0.255")
    demand.currentAverageValue, demand.lastAverageValue = 3012, 2987
    demand.scaler, demand.unit, demand.status = 1, 27, 0
    demand.captureTime = GXDateTime(PROFILE_BEGIN + dt.timedelta(hours=12))
    demand.startTimeCurrent = GXDateTime(PROFILE_BEGIN + dt.timedelta(hours=12))
    demand.period, demand.numberOfPeriods = 900, 1
    for index in (2, 3):
        demand.setDataType(index, DataType.UINT32)
    demand.setDataType(5, DataType.UINT8)

    clock = GXDLMSClock(CLOCK_NAME)
    clock.timeZone, clock.deviation, clock.enabled = -60, 60, False
    clock.begin = clock.end = GXDateTime(PROFILE_BEGIN)
    clock.clockBase = 1

    relay = GXDLMSDisconnectControl("0.0.96.3.10.255")
    relay.outputState, relay.controlState, relay.controlMode = True, ControlState.CONNECTED, ControlMode.MODE_4

    devices = GXDLMSSapAssignment("0.0.41.0.0.255")
    devices.sapAssignmentList = [(1, "GRXMANAGEMENT")]

    profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
    profile.capturePeriod, profile.profileEntries = PROFILE_PERIOD_S, 10000
    profile.sortMethod, profile.sortObject = SortMethod.FIFO, clock
    profile.sortObjectAttributeIndex = 2
    profile.addCaptureObject(clock, 2, 0)
    for register in registers:
        profile.addCaptureObject(register, 2, 0)
    for line in range(lines):
        captured = PROFILE_BEGIN + dt.timedelta(seconds=PROFILE_PERIOD_S * (line + 1))
        profile.buffer.append([GXDateTime(captured), 1000000 + 250 * line, 7 * line, 40000 + 11 * line, line])
    profile.entriesInUse = lines

    association = GXDLMSAssociationLogicalName("0.0.40.0.0.255")
    association.clientSAP, association.serverSAP = 1, 1
    objects = [name, counter, *registers, voltage, maximum, demand, clock, relay, devices, profile, association]
    for item in objects:
        association.objectList.append(item)
    association.securitySetupReference = "0.0.43.0.0.255"
    return {(int(item.objectType), item.logicalName): item for item in objects}, profile
