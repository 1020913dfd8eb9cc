"""From what was trained to what is served: export, and the certificate that both are the same.

export(run, out, to="gguf", level="q8_0")
certify(TrainerView(...), [EngineView(...), ...])
"""
