"""Training: speaker perturbation, Spin, DC-Spin and the stages around them."""
