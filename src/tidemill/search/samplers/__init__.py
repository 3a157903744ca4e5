"""Who proposes the next config: baselines, a learned portfolio, a model of the history, or chance."""
