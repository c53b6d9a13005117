"""Every installed plugin, loaded: for the proxy, which does so once at its start, and for `outthink doctor`.

Knows: which names are our own, in each group. Does not know what a plugin does.
"""

from __future__ import annotations

from outthink.controller.verifier import CHOICES
from outthink.core import __version__
from outthink.core.errors import OutthinkError
from outthink.core.plugins import Group, Plugin, installed, load, taken
from outthink.core.request import ANSWER_KINDS
from outthink.engines.locate import SCHEMES
from outthink.strategies import Spec, strategies


def load_plugins(*groups: Group) -> list[tuple[Plugin, str]]:
    """Each plugin (of all groups by default) with what is wrong with it in one line, empty where nothing is.

    Names that are taken are refused.
    """
    # By module, since plugins that were loaded before stand in the same table.
    own = (name for name, known in strategies().items() if known.function.__module__.startswith("outthink."))
    ours: dict[Group, frozenset[str]] = {
        "strategies": frozenset(own) | {"auto", "python"},
        "verifiers": frozenset(choice.partition(":")[0].partition("[")[0] for choice in CHOICES),
        "engines": frozenset(SCHEMES),
        "answers": frozenset(ANSWER_KINDS),
    }
    plugins = []
    for plugin in installed(*groups):
        problem = ""
        try:
            if plugin.name in ours[plugin.group]:
                raise taken(plugin.field, plugin.name, f"outthink {__version__}", plugin.distribution)
            if plugin.group == "strategies":
                Spec.parse(plugin.name, importing=True)
            else:
                load(plugin.group, plugin.name)
        except OutthinkError as error:
            problem = str(error)
        plugins.append((plugin, problem))
    return plugins
