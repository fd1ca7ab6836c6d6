"""What training will cost, told before it begins: memory, arithmetic and time."""
