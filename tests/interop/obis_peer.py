"""What gurux-dlms calls logical names: run in its environment, `LOGICAL-NAME CLASS` lines in, descriptions out."""

from __future__ import annotations

import sys

from gurux_dlms.enums import ObjectType
from gurux_dlms.GXDLMSConverter import GXDLMSConverter


def main() -> int:
    converter = GXDLMSConverter()
    for line in sys.stdin:
        logical_name, class_id = line.split()
        try:
            found = converter.getDescription(logical_name, ObjectType(int(class_id)))
        except ValueError:
            found = ["class unknown"]
        print(found[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
