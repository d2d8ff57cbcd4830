"""Many runs started and looked after: as processes of this machine, or as jobs of Slurm."""
