<?php

// Sends one message and waits for what becomes of it:
//
//   php send.php CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]
//
// Exit codes: 0 sent; 1 it will never be; 75 not stored, or still under way.

require __DIR__ . '/wazzup.php';

if ($argc < 4) {
    fwrite(STDERR, "usage: php send.php CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]\n");
    exit(2);
}
[, $channel, $chatId, $text] = $argv;
// A program keeps the command, with its id, until it is stored.
$command = ['id' => $argv[4] ?? bin2hex(random_bytes(16)), 'chatType' => 'whatsapp', 'chatId' => $chatId, 'text' => $text];
if (isset($argv[5])) {
    $command['expireAt'] = $argv[5];
}
try {
    $event = outcome(connect(), "send.$channel", $command, patience: (float) (getenv('PATIENCE') ?: 30));
} catch (NotStored $e) {
    fwrite(STDERR, "not stored: {$e->getMessage()}\n");
    exit(75);
}
switch ($event?->state) {
    case null:
        echo "still under way\n";
        exit(75);
    case 'sent':
        echo "sent $event->messageId\n";
        exit(0);
    case 'duplicate': // the id was used before, by a try whose answer was lost
        echo "duplicate of one that is {$event->original->state}\n";
        exit(0);
    case 'invalid':
        foreach ($event->error->faults as $fault) {
            echo "invalid $fault->field: $fault->code: $fault->description\n";
        }
        exit(1);
    default: // rejected, expired, cancelled, dead
        echo implode(' ', array_filter([$event->state, $event->error->code ?? null, $event->error->description ?? null])), "\n";
        exit(1);
}
