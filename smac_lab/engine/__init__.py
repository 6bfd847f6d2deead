"""Fast execution: several seeds at once, compiled and captured steps, parallel simulations."""
