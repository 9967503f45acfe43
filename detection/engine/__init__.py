"""The run pieces that search, classifier training and detection share."""
