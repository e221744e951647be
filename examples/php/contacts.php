<?php

// Makes contacts known to Wazzup, and lists all that it knows:
//
//   php contacts.php [FILE]

require __DIR__ . '/wazzup.php';

$contacts = json_decode(file_get_contents($argv[1] ?? __DIR__ . '/../contacts.json'), true, flags: JSON_THROW_ON_ERROR);
$client = connect();
// No id: an id such as contact-17 would make every later update a duplicate.
$event = outcome($client, 'sync.contacts.upsert', $contacts);
$state = $event->state ?? 'still under way';
echo count($contacts), " contacts: $state\n";
foreach ($event->items ?? [] as $item) {
    echo "  $item->id: {$item->error->code}\n";
}
foreach ($event->error->faults ?? [] as $fault) {
    echo "  $fault->field: $fault->code\n";
}

$known = 0;
for ($offset = 0; $offset !== null; $offset = $page->next ?? null) {
    $page = ask($client, 'contacts.list', ['offset' => $offset]);
    $known += count($page->items);
}
echo "Wazzup knows $known\n";
exit($state === 'done' ? 0 : 1);
