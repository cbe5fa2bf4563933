"""What programs in python do with files: modules, archives, databases, mappings, processes."""
import mmap, multiprocessing, os, pathlib, pickle, shutil, sqlite3, sys, tempfile, zipfile

pathlib.Path("module.py").write_text("def value():\n    return 42\n")
sys.path.insert(0, ".")
import module
print(module.value(), os.path.exists("__pycache__"))

shutil.copytree(os.environ["SOURCES"] + "/layout", "layout")
shutil.make_archive("layout", "zip", "layout")
print(zipfile.ZipFile("layout.zip").testzip())
shutil.rmtree("layout")

with open("pickled", "wb") as file:
    pickle.dump(list(range(100000)), file)
with open("pickled", "rb") as file:
    print(sum(pickle.load(file)))

with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x" * 100000)
    file.seek(99990)
    print(len(file.read()))
with tempfile.NamedTemporaryFile(dir=".") as file:
    file.write(b"named")
    file.flush()
    print(open(file.name, "rb").read())

database = sqlite3.connect("base.db")
database.execute("create table t (a integer primary key, b text)")
with database:
    database.executemany("insert into t values (?, ?)", ((n, "x" * (n % 100)) for n in range(5000)))
print(database.execute("select count(*), sum(length(b)) from t").fetchone())
database.close()

def count(number):
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        for at in range(number, len(mapped), 4):
            mapped[at] = number
    return number

with open("mapped", "wb") as file:
    file.truncate(1 << 16)
with multiprocessing.get_context("fork").Pool(4) as pool:
    print(pool.map(count, range(4)))
print(open("mapped", "rb").read() == bytes(range(4)) * (1 << 14))
with open("mapped", "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
    mapped.resize(1 << 17)
    mapped[-5:] = b"ended"
    mapped.move(0, len(mapped) - 5, 5)
    print(mapped.find(b"ended"), mapped.rfind(b"ended"))
    mapped.flush()
    file.seek(0)
    print(file.read(5))
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    print(mapped[:5])
