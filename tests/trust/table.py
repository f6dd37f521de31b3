"""Write the table of SECURITY.md from the catalogue and the kept results, running nothing."""

from tests.trust.catalogue import load, results, table, written
from tests.trust.run import SECURITY

if __name__ == "__main__":
    text = written(SECURITY.read_text(encoding="utf-8"), table(*load(), results()))
    SECURITY.write_text(text, encoding="utf-8")
