/* Numbers of JSON, exactly: a decimal of up to 19 digits and a power of ten that integers of 128 bits hold. */
#include "kernels.h"

#include <float.h>

/* Beyond it a product of 19 digits and a power of five does not fit 127 bits. */
enum { MOST_POWER = 27, MOST_DIGITS = 19 };

/* Powers of ten that are doubles: dividing a whole number below 2^53 by one rounds once, and so rightly. */
static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { MOST_TEN = 22 };

static const uint64_t FIVES[MOST_POWER + 1] = {1ULL,
                                               5ULL,
                                               25ULL,
                                               125ULL,
                                               625ULL,
                                               3125ULL,
                                               15625ULL,
                                               78125ULL,
                                               390625ULL,
                                               1953125ULL,
                                               9765625ULL,
                                               48828125ULL,
                                               244140625ULL,
                                               1220703125ULL,
                                               6103515625ULL,
                                               30517578125ULL,
                                               152587890625ULL,
                                               762939453125ULL,
                                               3814697265625ULL,
                                               19073486328125ULL,
                                               95367431640625ULL,
                                               476837158203125ULL,
                                               2384185791015625ULL,
                                               11920928955078125ULL,
                                               59604644775390625ULL,
                                               298023223876953125ULL,
                                               1490116119384765625ULL,
                                               7450580596923828125ULL};

typedef unsigned __int128 Wide;

static inline int bits_of(Wide number)
{
    uint64_t high = (uint64_t)(number >> 64);
    return high ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll((uint64_t)number);
}

/* Returns digits * 10^power, to the nearest double, ties to even. */
static double scaled(uint64_t digits, int power)
{
    Wide whole;
    int exponent;
    bool rest = false;
    if (power >= 0) {
        whole = (Wide)digits * FIVES[power];
        exponent = power;
    } else {
        /* Both begin with their highest bit, so that the quotient fits 64 bits and has at least 62. */
        uint64_t five = FIVES[-power];
        int above = __builtin_clzll(digits), below = __builtin_clzll(five);
        Wide number = (Wide)(digits << above) << 63;
        five <<= below;
        uint64_t quotient = (uint64_t)(number / five);
        rest = number != (Wide)quotient * five;
        whole = quotient;
        exponent = power + below - above - 63;
    }
    int drop = bits_of(whole) - DBL_MANT_DIG;
    if (drop > 0) {
        Wide half = (Wide)1 << (drop - 1), left = whole & ((half << 1) - 1);
        whole >>= drop;
        exponent += drop;
        whole += left > half || (left == half && (rest || (whole & 1)));
    }
    /* Two to the exponent, which is far from both ends of what a double holds. */
    uint64_t bits = (uint64_t)(exponent + DBL_MAX_EXP - 1) << (DBL_MANT_DIG - 1);
    double two;
    memcpy(&two, &bits, sizeof two);
    return (double)(uint64_t)whole * two;
}

static inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

const char *read_number(const char *p, double *value)
{
    bool minus = *p == '-';
    p += minus;
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1])))
        return NULL;
    uint64_t digits = 0;
    ptrdiff_t many = 0, power = 0;
    p += *p == '0';
    for (; is_digit(*p); p++, many++)
        digits = digits * 10 + (uint64_t)(*p - '0');
    if (*p == '.') {
        const char *point = ++p;
        for (; *p == '0' && !many; p++)
            ;
        for (; is_digit(*p); p++, many++)
            digits = digits * 10 + (uint64_t)(*p - '0');
        power = point - p;
        if (!power)
            return NULL;
    } else if (minus && !many) {
        /* Whether a whole number can be nothing and below it is a question for others. */
        return NULL;
    }
    if (many > MOST_DIGITS)
        return NULL;
    if ((*p | 0x20) == 'e') {
        p++;
        bool down = *p == '-';
        p += down || *p == '+';
        if (!is_digit(*p))
            return NULL;
        ptrdiff_t given = 0;
        for (; is_digit(*p); p++) {
            given = given * 10 + (*p - '0');
            if (given > 100)
                return NULL;
        }
        power += down ? -given : given;
    }
    double found;
    if (!digits)
        found = 0;
    else if (FLT_EVAL_METHOD == 0 && digits <= (uint64_t)1 << DBL_MANT_DIG && power >= -MOST_TEN && power <= MOST_TEN)
        found = power < 0 ? (double)digits / TENS[-power] : (double)digits * TENS[power];
    else if (power >= -MOST_POWER && power <= MOST_POWER)
        found = scaled(digits, (int)power);
    else
        return NULL;
    *value = minus ? -found : found;
    return p;
}
