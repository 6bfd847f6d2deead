"""How the same code runs fast: seeds at once, compiled and captured steps, simulations side by side."""
