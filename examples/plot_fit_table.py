"""
From a file to a model
======================

Tables come with holes, categories, dates and columns of no use. ``mercer fit`` makes a kernel
machine of them, ``mercer predict`` uses it; both stand on a few classes that Python reaches too.
"""

import csv
import random
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_diabetes

from mercer.cli import main
from mercer.datasets import ColumnEncoding, DataTable, TableEncoder, TableFile, read_table
from mercer.machines import KernelRidge, TablePredictor
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
kept = tempfile.TemporaryDirectory()
folder = Path(kept.name)
source = random.Random(0)

# %%
# A table as people have them
# ---------------------------
# Measurements of 442 patients, one in ten missing; a category; a date; a number of each row.

data = load_diabetes()
header = ["patient", "sex", "visit", "bmi", "pressure", "s5", "progression"]
patients = folder / "patients.csv"
with patients.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(header)
    for i, (row, target) in enumerate(zip(data.data, data.target, strict=True)):
        numbers = ["" if source.random() < 0.1 else f"{row[j]:.4f}" for j in (2, 3, 8)]
        sex, day = ("f" if row[1] > 0 else "m"), 1 + source.randrange(28)
        writer.writerow([i, sex, f"2026-02-{day:02d}", *numbers, target])

# %%
# What becomes of the columns
# ---------------------------
# A file is read some rows at a time, so that it may be of any length; this one fits into memory.
# The encoder learns medians, levels and scales from the rows that it is given, and says what it
# left out.

table = read_table(patients)
train = torch.arange(len(table)) < 350
encoder = TableEncoder.fit(table, target="progression", rows=train)
for column in encoder.columns:
    assert isinstance(column, ColumnEncoding)
    print(f"{column.name:10s}{column.kind:10s}becomes {', '.join(column.titles)}")
print(dict(encoder.notes))
x = torch.cat([encoder.encode(part) for part in TableFile(patients).chunks(100)])

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
image = ax.imshow(x[:60].mT.numpy(), aspect="auto", cmap="cividis", vmin=-2.5, vmax=2.5)
ax.set_yticks(range(len(encoder.titles)), encoder.titles, fontsize=8)
ax.set(title="Rows as the machine sees them", xlabel="row of the table")
figure.colorbar(image, label="standard deviations from the mean")

# %%
# A machine on top
# ----------------
# Encoder, machine and target go into one folder, without pickle.

y = torch.tensor([float(cell) for cell in table.column("progression")], dtype=torch.float64)
mean, scale = float(y[train].mean()), float(y[train].std())
machine = KernelRidge("matern52", alpha="loo", fit_intercept=True)
machine.fit(x[train], (y[train] - mean) / scale)
TablePredictor(encoder, machine, "progression", mean=mean, scale=scale).save_pretrained(
    folder / "model"
)

predictor = TablePredictor.from_pretrained(folder / "model")
found = torch.from_numpy(predictor.predict(patients))
print(
    predictor.predict(
        DataTable.of(
            {"bmi": [0.06], "pressure": [None], "s5": [0.02], "sex": ["f"], "visit": ["2026-02-10"]}
        )
    )
)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
machine.choice_.plot(axes[0])
axes[1].plot(y[~train], found[~train], "o", ms=4, alpha=0.6, label="rows held out")
axes[1].axline((150, 150), slope=1, color="C1", ls="--", label="perfect")
axes[1].set(title="Predicted against true", xlabel="progression", ylabel="predicted progression")
axes[1].legend(frameon=False)

# %%
# The same in one command
# -----------------------
# It compares kernels by leave-one-out errors, keeps to the minutes that it is given, and writes a
# page with the errors on rows held out, beside gradient boosting.

out = folder / "fitted"
options = ["--kernel", "rbf", "matern52", "ntk", "--budget", "1", "--threads", "1"]
main(["fit", str(patients), "--target", "progression", "--out", str(out), *options])
main(["predict", str(out / "model"), str(patients), "--out", str(folder / "predictions.csv")])
kept.cleanup()
plt.show()
