"""More of the user's own modules."""

TRIPS = {"miles": [float(n % 17) for n in range(200)], "fare": [3.0 + 2.0 * (n % 17) for n in range(200)]}
