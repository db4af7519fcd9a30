"""The parties' frames and their ids, nothing else."""
