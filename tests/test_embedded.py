"""The engines of the wheels: started, stopped, killed and restarted for real."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import psycopg
import pytest
import redis

from auditportal.embedded import environment, processes
from auditportal.embedded.engines import Engines
from auditportal.embedded.places import EngineError, find, socket_directory


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "with a space" / "data"
    yield directory
    Engines(directory).remove()


def query(url, text="SELECT 1"):
    with psycopg.connect(url) as connection:
        return connection.execute(text).fetchone()[0]


def test_engines_answer_keep_their_data_and_stop(data):
    engines = Engines(data)
    first = engines.start()
    assert query(first.database_url, "SHOW fsync") == "on"
    assert query(first.database_url, "SHOW listen_addresses") == ""
    assert query(first.database_owner_url, "SELECT current_user::text") == "auditportal_owner"
    with psycopg.connect(first.database_owner_url, autocommit=True) as owner:
        owner.execute("CREATE TABLE kept (x int)")
    redis.Redis.from_url(first.redis_url).set("kept", "yes")
    engines.stop()
    with pytest.raises(psycopg.OperationalError):
        query(first.database_url)
    second = Engines(data).start()
    assert query(second.database_owner_url, "SELECT count(*) FROM kept") == 0
    assert redis.Redis.from_url(second.redis_url).get("kept") == b"yes"


def test_second_start_attaches(data):
    first = Engines(data).start()
    assert Engines(data).start() == first


def test_killed_postmaster_is_started_again_and_nothing_committed_is_lost(data):
    engines = Engines(data)
    url = engines.start().database_owner_url
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x")
    pid = int((find(data).database / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    fresh = Engines(data).start()
    assert query(fresh.database_owner_url, "SELECT count(*) FROM kept") == 1000


def test_database_whose_passwords_were_thrown_away_says_so(data):
    Engines(data).start()
    Engines(data).stop()
    (data / "engines.secret").unlink()
    with pytest.raises(EngineError, match="start with --fresh"):
        Engines(data).start()


def test_wrong_password_and_superuser_without_one_are_refused(data):
    url = Engines(data).start().database_url
    head, _, tail = url.partition("@")
    with pytest.raises(psycopg.OperationalError, match="password"):
        query(head.rsplit(":", 1)[0] + ":wrong@" + tail)
    with pytest.raises(psycopg.OperationalError):
        query("postgresql://postgres@" + tail)
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(Engines(data).start().redis_url.split("?")[0]).ping()


def test_directories_that_were_there_keep_their_permissions_and_ours_are_private(tmp_path):
    parent = tmp_path / "shared"
    parent.mkdir(mode=0o711)
    parent.chmod(0o711)
    data = parent / "data"
    with Engines(data, fast=True) as endpoints:
        sockets = Path(endpoints.redis_url.split("://")[1].split("/valkey.sock")[0])
        assert stat.S_IMODE(parent.stat().st_mode) == 0o711
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / "engines.secret").stat().st_mode) == 0o600
        assert len(str(sockets)) < 80
    assert not sockets.exists()
    Engines(data).remove()


def test_socket_directories_are_fresh(data):
    places = find(data)
    one, two = socket_directory(places), socket_directory(places)
    assert one != two
    one.rmdir()
    two.rmdir()


def test_process_is_known_by_its_start_and_not_by_its_number_alone():
    ours = processes.Process.of(os.getpid())
    assert ours.is_alive()
    other = processes.Process(os.getpid(), "another start")
    assert not other.is_alive()
    other.send(signal.SIGKILL)  # would end this very test if the number alone counted
    assert processes.Process.of(2**22 + 1) is None


def test_env_file_is_private_keeps_its_keys_and_renews_addresses(tmp_path):
    path = tmp_path / ".env"
    given = {"data": tmp_path, "demo": True, "endpoints": None}
    first = environment.write(path, port=8000, **given)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first["AUDITPORTAL_ORIGIN"].startswith("demo.invalid/")
    path.write_text(path.read_text() + "AUDITPORTAL_HOSTS=portal.corp\n")
    second = environment.write(path, port=8001, **given)
    assert second["AUDITPORTAL_SECRET_KEY"] == first["AUDITPORTAL_SECRET_KEY"]
    assert second["AUDITPORTAL_URL"] == "http://localhost:8001"
    assert environment.read(path)["AUDITPORTAL_HOSTS"] == "portal.corp"
    assert time.time() - path.stat().st_mtime < 60
