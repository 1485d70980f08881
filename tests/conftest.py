"""What all tests share."""

import torch

# The tests' problems are small: a second thread only waits, and on a loaded machine it makes them 20 times slower.
torch.set_num_threads(1)
