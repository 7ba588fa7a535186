"""What the built-in corpus documents: standard library modules and parts of installed packages.

Modules are listed one by one: importing some has effects (`antigravity`, `this`), some exist on some
platforms only, and some document nothing that a reader of Python would look up.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STDLIB_MODULES: tuple[str, ...] = _words(
    """
abc argparse array ast asyncio asyncio.base_events asyncio.events asyncio.futures asyncio.locks
asyncio.queues asyncio.runners asyncio.streams asyncio.subprocess asyncio.tasks asyncio.taskgroups
asyncio.timeouts atexit base64 bdb binascii bisect builtins bz2 calendar cmath cmd code codecs codeop
collections collections.abc colorsys compileall concurrent.futures concurrent.futures.process
concurrent.futures.thread configparser contextlib contextvars copy copyreg csv ctypes ctypes.util
dataclasses datetime dbm decimal difflib dis doctest email email.charset email.contentmanager
email.encoders email.errors email.feedparser email.generator email.header email.headerregistry
email.iterators email.message email.mime.application email.mime.base email.mime.image
email.mime.message email.mime.multipart email.mime.text email.parser email.policy email.utils
encodings encodings.idna enum errno faulthandler filecmp fileinput fnmatch fractions ftplib functools
gc getopt getpass gettext glob graphlib gzip hashlib heapq hmac html html.entities html.parser http
http.client http.cookiejar http.cookies http.server imaplib importlib importlib.abc
importlib.machinery importlib.metadata importlib.resources importlib.util inspect io ipaddress
itertools json json.decoder json.encoder json.scanner keyword linecache locale logging logging.config
logging.handlers lzma mailbox marshal math mimetypes mmap modulefinder multiprocessing
multiprocessing.connection multiprocessing.context multiprocessing.managers multiprocessing.pool
multiprocessing.process multiprocessing.queues multiprocessing.shared_memory
multiprocessing.sharedctypes multiprocessing.synchronize netrc numbers opcode operator optparse os
os.path pathlib pdb pickle pickletools pkgutil platform plistlib poplib pprint profile pstats
py_compile pyclbr pydoc queue quopri random re reprlib rlcompleter runpy sched secrets select
selectors shelve shlex shutil signal site smtplib socket socketserver sqlite3 ssl stat statistics
string stringprep struct subprocess symtable sys sysconfig tabnanny tarfile tempfile textwrap
threading time timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata
unittest unittest.async_case unittest.case unittest.loader unittest.mock unittest.result
unittest.runner unittest.suite urllib urllib.error urllib.parse urllib.request urllib.response
urllib.robotparser uuid venv warnings wave weakref webbrowser wsgiref wsgiref.handlers
wsgiref.headers wsgiref.simple_server wsgiref.util wsgiref.validate xml xml.dom xml.dom.minidom
xml.dom.pulldom xml.etree.ElementTree xml.parsers.expat xml.sax xml.sax.handler xml.sax.saxutils
xml.sax.xmlreader xmlrpc.client xmlrpc.server zipapp zipfile zipimport zlib zoneinfo
"""
)

PACKAGE_MODULES: dict[str, tuple[str, ...]] = {
    "numpy": _words(
        """
numpy numpy.exceptions numpy.fft numpy.lib.format numpy.lib.mixins numpy.lib.npyio numpy.lib.scimath
numpy.lib.stride_tricks numpy.linalg numpy.polynomial numpy.polynomial.chebyshev
numpy.polynomial.polynomial numpy.random numpy.rec numpy.strings numpy.testing numpy.typing
"""
    ),
    "polars": ("polars", "polars.datatypes", "polars.selectors", "polars.testing"),
    "pyarrow": _words(
        """
pyarrow pyarrow.compute pyarrow.csv pyarrow.dataset pyarrow.feather pyarrow.fs pyarrow.ipc
pyarrow.json pyarrow.parquet
"""
    ),
    "torch": _words(
        """
torch torch.amp torch.autograd torch.autograd.functional torch.distributions torch.fft torch.func
torch.hub torch.linalg torch.nn torch.nn.functional torch.nn.attention torch.nn.init
torch.nn.modules.module torch.nn.parallel torch.nn.utils torch.nn.utils.parametrizations
torch.nn.utils.parametrize torch.nn.utils.prune torch.nn.utils.rnn torch.optim
torch.optim.lr_scheduler torch.optim.swa_utils torch.overrides torch.profiler torch.random
torch.special torch.testing torch.utils.benchmark torch.utils.checkpoint
torch.utils.data
"""
    ),
}
"""Public modules of the packages that the project itself depends on; others give their top level only.

Left out are modules that repeat the documentation of others, such as numpy.ma and numpy.char.
"""

_ELEMENT_TYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
LEFT_OUT = frozenset(f"torch.{element}Tensor" for element in _ELEMENT_TYPES)
"""Classes that repeat all of torch.Tensor."""


def modules_of(package: str) -> tuple[str, ...]:
    """The modules of a package that are documented, the package itself first."""
    return PACKAGE_MODULES.get(package, (package,))
