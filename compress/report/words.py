"""Figures as the pages write them."""

TITLES = {"teacher": "Teacher", "source": "Source", "onnx": "ONNX", "tflite": "TFLite", "ort": "ORT"}


def short_bytes(size_bytes: float) -> str:
    """Three digits, for example "4.72 MB", "96.1 kB", "850 B"."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= size:
            value = size_bytes / size
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{size_bytes:.0f} B"


def short_count(count: float) -> str:
    """Two decimals, for example "17.55 G", "1.50 M", "12.00 K", "850"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:.0f}"


def short_ms(milliseconds: float) -> str:
    """Three digits, for example "308 ms", "0.12 ms"."""
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def factor(ratio: float) -> str:
    """As a headline has it: "45", "8.5", "0.71"."""
    return f"{ratio:,.0f}" if ratio >= 10 else exact_factor(ratio)


def exact_factor(ratio: float) -> str:
    """As a table and an interval have it: "45.2", "8.5", "0.71"."""
    return f"{ratio:,.1f}" if ratio >= 2 else f"{ratio:.2f}"
