"""Packaging. The repository root is the package ``mmdense``.

Installing also lays out ``.mim/`` beside the code, where mmengine and mim look for a package's
configs: links to the folders in an editable install, copies in a wheel.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """``build_py`` that adds ``.mim/``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            self.link_mim(ROOT / '.mim')
        else:
            self.copy_mim(Path(self.build_lib, 'mmdense', '.mim'))

    def link_mim(self, mim: Path) -> None:
        mim.mkdir(exist_ok=True)
        for name in MIM_ITEMS:
            if not (mim / name).is_symlink():
                (mim / name).symlink_to(Path('..', name))

    def copy_mim(self, mim: Path) -> None:
        mim.mkdir(parents=True, exist_ok=True)
        for name in MIM_ITEMS:
            source = ROOT / name
            if source.is_dir():
                no_caches = shutil.ignore_patterns('__pycache__')
                shutil.copytree(source, mim / name, ignore=no_caches, dirs_exist_ok=True)
            else:
                shutil.copy2(source, mim / name)

    def find_package_modules(self, package: str, package_dir: str) -> list:
        """The root is a package, but setup.py is not one of its modules."""
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != 'setup']


setup(
    name='mmdense',
    version=re.search(r"__version__ = '(.+)'", (ROOT / '__init__.py').read_text())[1],
    description='Published vision backbones for dense prediction on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    package_dir={'mmdense': '.', '': 'tools'},  # '': where the command's module is
    py_modules=['mmdense_cli'],
    entry_points={'console_scripts': ['mmdense = mmdense_cli:main']},
    packages=[
        'mmdense',
        'mmdense.backbones',
        'mmdense.engine',
        'mmdense.families',
        'mmdense.heads',
        'mmdense.inference',
        'mmdense.intake',
        'mmdense.reporting',
        'mmdense.serialization',
        'mmdense.study',
        'mmdense.tools',
        'mmdense.data',
    ],
    package_data={'mmdense.reporting': ['*.jinja']},
    include_package_data=False,
    cmdclass={'build_py': BuildWithMim},
    install_requires=[
        'torch>=2.8',
        'torchvision>=0.23',
        'onedl-mmengine>=0.10.12,<0.11',
        'onedl-mmcv>=2.3.6,<2.4',
        'onedl-mmdetection>=3.5.1,<3.6',
        'onedl-mmsegmentation>=1.4.2,<1.5',
        'onedl-mmpretrain>=1.3.6,<1.4',
        'timm>=1.0.21,<1.1',
        'numpy>=2,<2.3',
        'imaug>=0.4.3',
        'filelock>=3.12',
        'jinja2>=3.1',
        'shtab>=1.7',
        'tensorboard>=2.15',
    ],
    extras_require={
        'export': ['onnx>=1.18', 'onnxscript>=0.7', 'onnxruntime>=1.20'],
        'explore': ['gradio>=6.31,<7'],
        'hosts': ['transformers>=5.24,<6', 'segmentation-models-pytorch>=0.6,<0.7'],
        'study': ['submitit>=1.5,<2'],  # to give its runs to a cluster
        'demo': ['scikit-learn>=1.4', 'scikit-image>=0.22'],
        'test': [
            'pytest>=8',
            'pytest-cov>=6',
            'pytest-xdist>=3.6',
            'import-linter>=2.1',
            'ruff>=0.8',
            'hypothesis>=6.100',
            'scikit-learn>=1.4',
            'scikit-image>=0.22',
        ],
    },
)
