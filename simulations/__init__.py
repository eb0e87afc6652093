"""The whole system under virtual time: production wiring, simulated outside world, seeded faults."""
