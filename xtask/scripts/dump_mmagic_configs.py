"""Dumps MMagic's own configurations as JSON, by mmengine, as users of MMagic dump theirs.

    python3 xtask/scripts/dump_mmagic_configs.py --setup target/mmengine-venv
    target/mmengine-venv/bin/python xtask/scripts/dump_mmagic_configs.py --out target/mmagic-configs

The first call makes a virtual environment with mmengine and MMagic from PyPI, without PyTorch: mmengine reads
configurations without it. The second writes one file per configuration, named after its path; files that others are
based on (`_base_`) are not dumped by themselves. `cargo xtask config mmagic` runs both, and checks what was written.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

# mmengine and MMagic without their dependencies, and what mmengine imports to read a configuration.
REQUIREMENTS = [
    'mmagic==1.2.0', 'mmengine==0.10.7', 'addict==2.4.0', 'numpy>=1.26,<3', 'packaging>=24', 'pyyaml>=6,<7',
    'yapf==0.43.0', 'platformdirs>=4', 'rich>=13', 'markdown-it-py>=3', 'mdurl>=0.1', 'pygments>=2.17', 'termcolor>=2',
]


def set_up(directory):
    """Makes the virtual environment, or completes it."""
    scripts = 'Scripts' if sys.platform == 'win32' else 'bin'
    python = Path(directory) / scripts / ('python.exe' if sys.platform == 'win32' else 'python')
    record = Path(directory) / 'installed.txt'
    if record.exists() and record.read_text(encoding='utf-8') == '\n'.join(REQUIREMENTS):
        return
    if not python.exists():
        subprocess.run([sys.executable, '-m', 'venv', directory], check=True)
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', *REQUIREMENTS],
                   check=True)
    # Written last: without it, what an interruption left is begun again.
    record.write_text('\n'.join(REQUIREMENTS), encoding='utf-8')


def dump(out):
    """Writes every configuration; a file that cannot be read fails the dump."""
    import importlib.util
    from mmengine.config import Config
    package = Path(importlib.util.find_spec('mmagic').origin).parent
    root = package / '.mim' / 'configs'
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob('*.json'):
        old.unlink()
    written = 0
    for path in sorted(root.rglob('*.py')):
        relative = path.relative_to(root)
        if '_base_' in relative.parts:
            continue
        document = Config.fromfile(path).to_dict()
        name = '__'.join(relative.with_suffix('').parts) + '.json'
        # What JSON has no word for (a function, a type) is written as Python prints it.
        (out / name).write_text(json.dumps(document, default=str), encoding='utf-8')
        written += 1
    if not written:
        sys.exit(f'no configuration below {root}')
    print(f'{written} configurations in {out}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--setup', metavar='VENV_DIR', help='make the virtual environment, and end')
    parser.add_argument('--out', metavar='DIR', type=Path, help='write the configurations here')
    options = parser.parse_args()
    if options.setup:
        set_up(options.setup)
    elif options.out:
        dump(options.out)
    else:
        parser.error('nothing to do: give --setup or --out')


if __name__ == '__main__':
    main()
