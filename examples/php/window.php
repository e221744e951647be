<?php

// Opens the chat window of one customer for one of your users:
//
//   php window.php USER_ID USER_NAME CHAT_ID

require __DIR__ . '/wazzup.php';

if ($argc !== 4) {
    fwrite(STDERR, "usage: php window.php USER_ID USER_NAME CHAT_ID\n");
    exit(2);
}
$chat = ['chatType' => 'whatsapp', 'chatId' => $argv[3]];
$question = ['user' => ['id' => $argv[1], 'name' => $argv[2]], 'scope' => 'card', 'filter' => [$chat], 'activeChat' => $chat];
echo ask(connect(), 'iframe.open', $question)->url, "\n"; // whoever has it can use the window: keep it out of logs
