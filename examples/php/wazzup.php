<?php

// What a program needs beside basis-company/nats in order to work with
// wazzup-relay. Copy it, and change it to your taste.

use Basis\Nats\Client;
use Basis\Nats\Configuration;
use Basis\Nats\Message\Payload;

require __DIR__ . '/vendor/autoload.php';

define('ACCOUNT', getenv('WAZZUP_ACCOUNT') ?: 'main');

// The states in which a command has ended; see docs/events.md.
const FINAL_STATES = ['sent', 'done', 'rejected', 'invalid', 'duplicate', 'expired', 'cancelled', 'dead'];

// NotStored says that a command is not stored, as far as can be known here: the
// client does not tell a missing answer from a subject that nobody takes.
final class NotStored extends RuntimeException
{
}

function connect(): Client
{
    $url = parse_url(getenv('NATS_URL') ?: 'nats://127.0.0.1:4222');
    return new Client(new Configuration(
        host: $url['host'],
        port: $url['port'] ?? 4222,
        user: getenv('NATS_USER') ?: null,
        pass: getenv('NATS_PASSWORD') ?: null,
        timeout: 5,
    ));
}

// publish returns the command's number in the stream: from then on it ends in
// exactly one final event. It tries again for as long as $patience (seconds)
// lasts while the stream is full or no answer comes, in the latter case only with
// an id, under which a repeat does no harm.
function publish(Client $client, string $subject, array $command, ?string $replyTo = null, float $patience = 30): int
{
    $headers = $replyTo === null ? [] : ['Wazzup-Reply-To' => $replyTo];
    $payload = new Payload(json_encode($command, JSON_THROW_ON_ERROR), $headers);
    $end = microtime(true) + $patience;
    for ($wait = 0.5; ; $wait = min(2 * $wait, 30)) {
        $again = true;
        try {
            $ack = $client->dispatch('wazzup.' . ACCOUNT . ".cmd.$subject", $payload, 5);
            if ($ack->error === null) {
                return $ack->seq;
            }
            $why = $ack->error->description; // refused, such as "maximum bytes exceeded"
        } catch (LogicException) {
            $why = "no answer: is there $subject of account " . ACCOUNT . ', and has a worker ever served it?';
            $again = isset($command['id']);
        }
        $after = $wait * random_int(50, 150) / 100;
        if (!$again || microtime(true) + $after > $end) {
            throw new NotStored($why);
        }
        usleep((int) ($after * 1_000_000));
    }
}

// outcome publishes a command and returns its final event, or null if there is
// none within $timeout (seconds): then the event will come, and a durable consumer
// of the events gets it.
function outcome(Client $client, string $subject, array $command, float $patience = 30, float $timeout = 60): ?stdClass
{
    $inbox = '_INBOX.' . bin2hex(random_bytes(16));
    $replies = $client->subscribe($inbox); // before the command is published
    $replies->setTimeout(1);
    try {
        echo 'stored as ', publish($client, $subject, $command, $inbox, $patience), "\n";
        for ($end = microtime(true) + $timeout; microtime(true) < $end;) {
            $event = $replies->fetch()?->payload->getValues();
            if ($event !== null && in_array($event->state, FINAL_STATES, true)) {
                return $event;
            }
        }
        return null;
    } finally {
        $client->unsubscribe($replies);
    }
}

// ask sends a request and returns its answer. While the account changes hands, for
// a few seconds, nobody answers.
function ask(Client $client, string $name, array $question = []): stdClass
{
    for ($tries = 1; ; $tries++) {
        try {
            $answer = $client->dispatch('wazzup.' . ACCOUNT . ".api.$name", json_encode((object) $question), 10);
            break;
        } catch (LogicException $e) {
            if ($tries === 3) {
                throw $e;
            }
        }
    }
    if ($answer->hasHeader('Nats-Service-Error-Code')) {
        throw new RuntimeException("$name: {$answer->error->code}: {$answer->error->description}");
    }
    return $answer->getValues();
}
