<?php

function key_of(string $text): string
{
    if (preg_match('/\A[A-Za-z0-9_-]{1,64}\z/', $text)) {
        return $text;
    }
    return '~' . substr(hash('sha256', $text), 0, 32);
}
