"""Table E.1-1 of PS3.15 as it was published; the cleaning and its check each read it themselves."""

from pathlib import Path

TABLE = Path(__file__).with_name("ps315_basic_profile.csv")
