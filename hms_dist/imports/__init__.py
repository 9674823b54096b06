"""Import of recordings from EDF, BDF, BrainVision, FIF and MATLAB files into Kaggle's folder layout."""
