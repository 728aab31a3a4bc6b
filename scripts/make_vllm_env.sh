#!/usr/bin/env bash
# Make .venv-vllm, an environment with vLLM for the CPU: make_vllm_env.sh PYTHON TORCH VLLM
# Exit 0 also where the index lacks the packages (said loudly, nothing left behind); 1 for any other failure.
set -euo pipefail
python=$1 torch=$2 vllm=$3
folder=.venv-vllm
log=$(mktemp)
trap 'rm -f "$log"' EXIT

install() {
  # $torch may hold options besides the requirement, so arguments are split on purpose.
  # shellcheck disable=SC2086
  "$folder/bin/python" -m pip install -q --disable-pip-version-check $1 >"$log" 2>&1 && return
  if grep -qiE 'no matching distribution|could not find a version' "$log"; then
    echo "NO VLLM: $(grep -iE 'no matching distribution' "$log" | tail -1 | cut -c1-200); its tests will be skipped" >&2
    rm -rf "$folder"
    exit 0
  fi
  cat "$log" >&2
  exit 1
}

echo "Preparing $folder with $vllm (once, some minutes)"
rm -rf "$folder"
"$python" -m venv "$folder"
install "pip>=25.1"
install "$torch"
install "$vllm"
# vLLM asks for these three, and those that resolve are built for another torch: they break Transformers' import.
"$folder/bin/python" -m pip uninstall -q -y torchvision torchaudio torchcodec >"$log" 2>&1 || true
install "--no-deps -e ."
"$folder/bin/python" -c 'import msgspec, torch, vllm' >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
touch "$folder/.installed"
