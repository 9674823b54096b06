"""The network in training: building, optimiser steps, CUDA graphs, throughput, evaluation."""
