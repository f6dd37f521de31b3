"""pymodbus' asyncio client in the Modbus bench: a client and a task a device. In `.venv-pymodbus`."""

from __future__ import annotations

import asyncio
import sys

from benches.peers import asking
from pymodbus.client import AsyncModbusTcpClient

REGISTERS = 10


async def main() -> int:
    given = asking.options()
    meter = asking.Meter("pymodbus", given)
    clients = [AsyncModbusTcpClient("127.0.0.1", port=given.port, retries=0) for _ in range(given.meters)]
    for start in range(0, len(clients), 256):
        connected = await asyncio.gather(*(client.connect() for client in clients[start : start + 256]))
        meter.associated += sum(connected)
    asking_on = True

    async def ask(client: AsyncModbusTcpClient) -> None:
        while asking_on:
            answer = await client.read_holding_registers(0, count=REGISTERS)
            if answer.isError() or len(answer.registers) != REGISTERS:
                meter.lost += 1
            meter.exchanges += 1

    meter.begin()
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(ask(client))
        await asyncio.sleep(given.warm_up)
        meter.count_from_now()
        await asyncio.sleep(given.seconds)
        meter.count_until_now()
        asking_on = False
    for client in clients:
        client.close()
    return meter.report()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
