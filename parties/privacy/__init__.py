"""What a transcript gives away: priors, attacks, leaks, certificates. Pure functions of arrays; nothing here sends."""
