"""The commit that is running, as git tells it."""

import subprocess

from stec.commit import commit


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", folder, *names, *words], capture_output=True, text=True, check=True).stdout


def test_a_file_of_a_repository_has_a_commit_and_others_none(tmp_path):
    git(tmp_path, "init", "-q")
    ours, other = tmp_path / "a.py", tmp_path / "b.py"
    ours.write_text("1")
    assert commit(str(ours)) == ""
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "x")
    digits = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit(str(ours)) == digits
    ours.write_text("2")
    assert commit(str(ours)) == f"{digits}-dirty"
    other.write_text("")  # such as a package that lies in a folder that git ignores
    assert commit(str(other)) == ""
    assert commit(str(tmp_path / "nowhere" / "c.py")) == ""
