#!/usr/bin/env perl
# DBD::Pg: placeholders, server-side prepare, transactions, savepoints, arrays, COPY, metadata, every type.
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);

my ($host, $port, $user, $database, $password) = @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD)};
my @failed;

sub connected {
    my %options = @_;
    my $dsn = "dbi:Pg:host=$host;port=$port;dbname=$database;application_name=perl";
    return DBI->connect($dsn, $user, $password,
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1, %options });
}

sub same {
    my ($expected, $actual, $what) = @_;
    my ($e, $a) = map { shown($_) } $expected, $actual;
    die "$what: expected $e, got $a\n" if $e ne $a;
}

sub shown {
    my ($value) = @_;
    return 'undef' if !defined $value;
    return '[' . join(', ', map { shown($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return "<$value>";
}

sub fails {
    my ($dbh, $state, $run) = @_;
    die "accepted; $state was expected\n" if eval { $run->(); 1 };
    same($state, $dbh->state, $@);
}

sub step {
    my ($name, $run) = @_;
    if (eval { my $dbh = connected(); $run->($dbh); $dbh->disconnect; 1 }) {
        print "ok $name\n";
    } else {
        push @failed, $name;
        print "FAILED $name: $@\n";
    }
}

step connections => sub {
    my ($dbh) = @_;
    same('perl', $dbh->selectrow_array('SHOW application_name'), 'application_name');
    same(1, $dbh->ping, 'ping');
    die "version $dbh->{pg_server_version}\n" if $dbh->{pg_server_version} < 150000;
    same($database, $dbh->{pg_db}, 'database');
    my $bad = eval { DBI->connect("dbi:Pg:host=$host;port=$port;dbname=no_such_database", $user, $password,
        { RaiseError => 1, PrintError => 0 }) };
    die "connected to a database that does not exist\n" if $bad;
};

step transactions => sub {
    my ($dbh) = @_;
    $dbh->do('CREATE TABLE perl_tx (k int PRIMARY KEY, v text)');
    $dbh->begin_work;
    $dbh->do('INSERT INTO perl_tx VALUES (?, ?)', undef, 1, 'rolled back');
    $dbh->rollback;
    $dbh->{AutoCommit} = 0;
    $dbh->do('INSERT INTO perl_tx VALUES (?, ?)', undef, 1, 'kept');
    $dbh->pg_savepoint('here');
    fails($dbh, '23505', sub { $dbh->do('INSERT INTO perl_tx VALUES (1, NULL)') });
    fails($dbh, '25P02', sub { $dbh->do('SELECT 1') });
    $dbh->pg_rollback_to('here');
    $dbh->pg_release('here');
    $dbh->commit;
    $dbh->{AutoCommit} = 1;
    same([[1, 'kept']], $dbh->selectall_arrayref('SELECT * FROM perl_tx'), 'rows');
    same('42P01', (eval { $dbh->do('SELECT * FROM nowhere') }, $dbh->state)[-1], 'state');
};

step batches => sub {
    my ($dbh) = @_;
    $dbh->do('CREATE TABLE perl_batch (k int PRIMARY KEY, v text)');
    my $insert = $dbh->prepare('INSERT INTO perl_batch VALUES (?, ?)');
    my $done = $insert->execute_array({}, [1 .. 100], [map { "v$_" } 1 .. 100]);
    same(100, $done, 'execute_array');
    same('INSERT INTO perl_batch VALUES (?, ?)', $insert->{Statement}, 'statement');
    my $select = $dbh->prepare('SELECT v FROM perl_batch WHERE k = $1');
    for my $k (1 .. 20) {
        $select->execute($k);
        same("v$k", $select->fetchrow_array, 'prepared');
        $select->finish;
    }
    my $named = $dbh->prepare('SELECT count(*) FROM perl_batch WHERE k < :most AND k > :least');
    $named->bind_param(':most', 10, SQL_INTEGER);
    $named->bind_param(':least', 5, SQL_INTEGER);
    $named->execute;
    same(4, $named->fetchrow_array, 'named placeholders');
    same(3, $dbh->do('UPDATE perl_batch SET v = ? WHERE k = ANY(?)', undef, 'x', [1, 2, 3]), 'rows updated');
    same('0E0', $dbh->do('DELETE FROM perl_batch WHERE k = 0'), 'nothing deleted');
    my $returned = $dbh->selectcol_arrayref('INSERT INTO perl_batch VALUES (200, ?) RETURNING k', undef, 'r');
    same([200], $returned, 'returning');
    $dbh->do('CREATE TABLE perl_serial (id serial PRIMARY KEY, v text)');
    $dbh->do("INSERT INTO perl_serial (v) VALUES ('a')");
    same(1, $dbh->last_insert_id(undef, 'public', 'perl_serial', undef), 'last_insert_id');
};

step cursors => sub {
    my ($dbh) = @_;
    $dbh->begin_work;
    $dbh->do('DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 100) g');
    my $sum = 0;
    while (my $rows = $dbh->selectcol_arrayref('FETCH 30 FROM c')) {
        last if !@$rows;
        $sum += $_ for @$rows;
    }
    same(5050, $sum, 'sum in portions');
    $dbh->do('CLOSE c');
    $dbh->commit;
};

step copies => sub {
    my ($dbh) = @_;
    $dbh->do('CREATE TABLE perl_copied (k int PRIMARY KEY, v text)');
    $dbh->do('COPY perl_copied FROM STDIN');
    $dbh->pg_putcopydata("1\tä\n");
    $dbh->pg_putcopydata("2\t\\N\n");
    $dbh->pg_putcopyend;
    $dbh->do('COPY (SELECT * FROM perl_copied ORDER BY k) TO STDOUT');
    my ($line, @lines) = ('');
    push @lines, $line while $dbh->pg_getcopydata($line) >= 0;
    same(["1\tä\n", "2\t\\N\n"], \@lines, 'copied');
};

step metadata => sub {
    my ($dbh) = @_;
    $dbh->do("CREATE TABLE perl_meta (a int NOT NULL, b varchar(7) DEFAULT 'x', n numeric(6,2), PRIMARY KEY (a))");
    $dbh->do('CREATE TABLE perl_child (id int PRIMARY KEY, a int REFERENCES perl_meta ON UPDATE CASCADE)');
    my $columns = $dbh->column_info(undef, 'public', 'perl_meta', '%')->fetchall_arrayref({});
    same([['a', 'integer', 0], ['b', 'character varying', 1], ['n', 'numeric', 1]],
        [map { [@{$_}{qw(COLUMN_NAME TYPE_NAME NULLABLE)}] } @$columns], 'column_info');
    same(7, $columns->[1]{COLUMN_SIZE}, 'column size');
    same("'x'::character varying", $columns->[1]{COLUMN_DEF}, 'column default');
    same(['a'], [$dbh->primary_key(undef, 'public', 'perl_meta')], 'primary_key');
    my $tables = $dbh->table_info(undef, 'public', 'perl_%', 'TABLE')->fetchall_arrayref({});
    die "perl_meta is not listed\n" if !grep { $_->{TABLE_NAME} eq 'perl_meta' } @$tables;
    my $keys = $dbh->foreign_key_info(undef, 'public', 'perl_meta', undef, 'public', 'perl_child')->fetchall_arrayref({});
    same([['perl_meta', 'a', 'perl_child', 'a']],
        [map { [@{$_}{qw(UK_TABLE_NAME UK_COLUMN_NAME FK_TABLE_NAME FK_COLUMN_NAME)}] } @$keys], 'foreign_key_info');
    my $statistics = $dbh->statistics_info(undef, 'public', 'perl_meta', 1, 0)->fetchall_arrayref({});
    die "no index is listed\n" if !grep { ($_->{INDEX_NAME} // '') eq 'perl_meta_pkey' } @$statistics;
    my $statement = $dbh->prepare('SELECT a, b, n FROM perl_meta');
    $statement->execute;
    same(['a', 'b', 'n'], $statement->{NAME}, 'names');
    same(['int4', 'varchar', 'numeric'], $statement->{pg_type}, 'types');
    same([4, 11, 6], [@{$statement->{PRECISION}}], 'precision');
    same([0, 1, 1], $statement->{NULLABLE}, 'nullable');
};

step cancelling => sub {
    my ($dbh) = @_;
    $dbh->do('SELECT pg_sleep(20)', { pg_async => PG_ASYNC });
    select undef, undef, undef, 0.2;
    same(1, $dbh->pg_cancel, 'cancelled');
    same(1, $dbh->selectrow_array('SELECT 1'), 'the connection goes on');
    $dbh->do('SET statement_timeout = 100');
    fails($dbh, '57014', sub { $dbh->do('SELECT pg_sleep(20)') });
};

my @types = (
    [boolean => 1, 0],
    [smallint => -32768, 32767],
    [integer => -2147483648],
    [bigint => '9223372036854775807'],
    [real => '1.5', '-2.25e-30'],
    ['double precision' => '0.1', '1e+300', 'NaN'],
    [numeric => '-12345678901234567890.1234567890', '0.10', 'NaN'],
    [text => '', 'käse 🧀', "a'b\\\"\n"],
    ['varchar(20)' => 'short'],
    ['char(5)' => 'ab   '],
    [bytea => "\x00\xff'\\"],
    [date => '2024-02-29', '0044-03-15 BC', 'infinity'],
    [time => '23:59:59.999999'],
    [timetz => '23:59:59.5+05:30'],
    [timestamp => '1999-12-31 23:59:59.999999'],
    [timestamptz => '2024-02-29 12:00:00+00'],
    [interval => '1 year 2 mons -3 days +04:05:06.7'],
    [uuid => '01234567-89ab-cdef-0123-456789abcdef'],
    [json => '{"k" : [1, 2.50]}'],
    [jsonb => '{"k": [1, 2.50]}'],
    [oid => 0, '4294967295'],
);

for (@types) {
    my ($type, @values) = @$_;
    step $type => sub {
        my ($dbh) = @_;
        $dbh->do("SET TimeZone = 'UTC'");
        (my $table = "perl_$type") =~ s/\W//g;
        $dbh->do("CREATE TABLE $table (id int PRIMARY KEY, v $type, a $type" . '[])');
        my $insert = $dbh->prepare("INSERT INTO $table VALUES (?, ?, ?)");
        my %binary = $type eq 'bytea' ? (pg_type => PG_BYTEA) : ();
        my $id = 0;
        for my $value (@values, undef) {
            $insert->bind_param(1, $id++);
            $insert->bind_param(2, $value, { %binary });
            $insert->bind_param(3, $type eq 'bytea' || !defined $value ? undef : [$value, undef]);
            $insert->execute;
        }
        my $rows = $dbh->selectall_arrayref("SELECT v, a FROM $table ORDER BY id");
        for my $i (0 .. $#values) {
            same($values[$i], $rows->[$i][0], $type);
            # DBD::Pg makes Perl numbers of the elements of a numeric array.
            my $read = $type eq 'numeric' ? [$rows->[$i][1][0] + 0, undef] : $rows->[$i][1];
            my $wrote = $type eq 'numeric' ? [$values[$i] + 0, undef] : [$values[$i], undef];
            same($wrote, $read, "$type\[]") if $type ne 'bytea';
        }
        same([undef, undef], $rows->[-1], 'NULL');
    };
}

print 'failed: ', join(', ', @failed), "\n" if @failed;
exit(@failed ? 1 : 0);
