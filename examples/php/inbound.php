<?php

// Prints what customers write, until Ctrl-C:
//
//   php inbound.php [DURABLE]
//
// The durable consumer remembers what was acknowledged, which the client does when
// the function has returned: what was not comes again, with the same ce-id.

use Basis\Nats\Message\Payload;

require __DIR__ . '/wazzup.php';

$consumer = connect()->getApi()->getStream('wazzup-' . ACCOUNT . '-records')->getConsumer($argv[1] ?? 'php-inbound');
$consumer->getConfiguration()->setSubjectFilter('wazzup.' . ACCOUNT . '.evt.message.in.>');
$consumer->setBatching(100)->setExpires(5)->handle(function (Payload $message): void {
    $text = $message->text ?: $message->content;
    echo "$message->chatType $message->chatId: $text\n";
});
