"""Pages that show what happens: README.md, and one for each command."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
COMMANDS = ROOT / "docs" / "commands"
PAGES = [README, *sorted(COMMANDS.glob("*.md"))]
