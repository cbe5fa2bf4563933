# Modules, archives, mappings, descriptors in every way that python has.
python3 "$CASES/descriptors.py"
python3 "$CASES/files.py"
