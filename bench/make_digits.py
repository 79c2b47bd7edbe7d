"""`python -m bench.make_digits`: the labels and predicted probabilities that `lossfuncs evaluate` shows without files.

Writes lossfuncs/data/digits.npz. The same versions of scikit-learn and NumPy give the same file; lossfuncs/data/README.md says where
the data come from, and what this printed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 0
TEST_SHARE = 1 / 3
TARGET = Path(__file__).parent.parent / "lossfuncs" / "data" / "digits.npz"


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    train, test, y_train, y_true = train_test_split(pixels, digits, test_size=TEST_SHARE, stratify=digits, random_state=SEED)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, y_train)
    y_pred = model.predict_proba(test).astype(np.float32)
    np.savez_compressed(TARGET, y_true=y_true.astype(np.uint8), y_pred=y_pred)
    right = np.mean(y_pred.argmax(axis=1) == y_true)
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, {len(train)} rows to fit, {len(test)} to test, accuracy {right:.4f}, "
          f"scikit-learn {sklearn.__version__}, NumPy {np.__version__}")  # fmt: skip


if __name__ == "__main__":
    main()
