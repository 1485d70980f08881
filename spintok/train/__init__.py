"""Train tokenizers: recipes, the stages (K-means, masked prediction, CTC, Spin), and the loop they share."""
