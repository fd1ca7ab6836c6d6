"""Write synthetic taxi trips as CSV, with the columns of the Chicago taxi data, for the taxi recipe and the guides.

    python -m kerasline.pipeline.recipes.sample_trips trips.csv

The values are random and describe no real trip. They follow the shape of the public data: fares grow with distance,
places and companies are sometimes missing, and tips are recorded for trips paid by card.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np

COMPANIES = ["Blue Cabs", "Northside Taxi", "Lakeshore Dispatch", "City Wide Taxi", "Green Line Cabs"]
PAYMENTS = {"Cash": 0.62, "Credit Card": 0.36, "No Charge": 0.01, "Unknown": 0.01}
AREAS = 30
# Trips start in the years 2013 to 2016, in quarters of an hour.
FIRST, LAST = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp() for year in (2013, 2017))


def sample_trips(rows: int = 15_000, seed: int = 0) -> dict[str, list[Any]]:
    """Return synthetic trips, one list per column. A missing value is None.

    Args:
        rows: number of trips.
        seed: the same seed gives the same trips.
    """
    random = np.random.default_rng(seed)
    area_latitude, area_longitude = random.uniform(41.7, 42.0, AREAS), random.uniform(-87.9, -87.55, AREAS)
    pickup, dropoff = random.zipf(1.6, (2, rows)) % AREAS
    seconds = random.uniform(FIRST, LAST, rows).astype(int) // 900 * 900
    starts = [datetime.datetime.fromtimestamp(int(second), datetime.UTC) for second in seconds]
    miles = np.round(random.gamma(1.2, 2.4, rows), 1)
    duration = (miles * random.uniform(120, 300, rows)).astype(int) // 60 * 60
    fare = np.round((3.25 + 1.8 * miles + 0.2 * duration / 60) / 0.05) * 0.05
    payment = random.choice(list(PAYMENTS), rows, p=list(PAYMENTS.values()))
    # Longer trips in the evening are tipped more.
    hours = np.array([start.hour for start in starts])
    share = 0.18 + 0.04 * (hours >= 18) + 0.01 * np.log1p(miles) + random.normal(0, 0.04, rows)
    tips = np.where(payment == "Credit Card", np.round(np.clip(share, 0, None) * fare, 2), 0.0)
    has_dropoff, has_company = random.random(rows) < 0.97, random.random(rows) < 0.66
    return {
        "pickup_community_area": (pickup + 1).tolist(),
        "fare": np.round(fare, 2).tolist(),
        "trip_start_month": [start.month for start in starts],
        "trip_start_hour": hours.tolist(),
        "trip_start_day": [start.isoweekday() for start in starts],
        "trip_start_timestamp": seconds.tolist(),
        "pickup_latitude": np.round(area_latitude[pickup], 6).tolist(),
        "pickup_longitude": np.round(area_longitude[pickup], 6).tolist(),
        "dropoff_latitude": _where(has_dropoff, np.round(area_latitude[dropoff], 6)),
        "dropoff_longitude": _where(has_dropoff, np.round(area_longitude[dropoff], 6)),
        "trip_miles": miles.tolist(),
        "pickup_census_tract": _where(random.random(rows) < 0.5, 17_031_000_000 + 100 * pickup),
        "dropoff_census_tract": _where(has_dropoff, 17_031_000_000 + 100 * dropoff),
        "payment_type": payment.tolist(),
        "company": _where(has_company, random.choice(COMPANIES, rows)),
        "trip_seconds": duration.tolist(),
        "dropoff_community_area": _where(has_dropoff, dropoff + 1),
        "tips": tips.tolist(),
    }


def write_trips(path: Path, rows: int = 15_000, seed: int = 0) -> None:
    """Write synthetic trips as a CSV file. See `sample_trips`."""
    trips = sample_trips(rows, seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(trips)
        writer.writerows(zip(*trips.values()))


def _where(present: np.ndarray, values: np.ndarray) -> list[Any]:
    return [value if there else None for value, there in zip(values.tolist(), present.tolist())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write synthetic taxi trips as CSV.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_trips(given.file, given.rows, given.seed)
