"""Masking of real numbers in texts, in any notation."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.numbers import mask_number
from relay.privacy.texts import MOST_PASSES, mask_numbers, mask_within

SENDER = "8613800000001"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("13900000002", "139****0002"),
        ("call 13900000002, please", "call 139****0002, please"),
        ("打13900000002给我", "打139****0002给我"),
        ("139-0000-0002", "139****0002"),
        ("139 0000 0002", "139****0002"),
        ("139.0000.0002", "139****0002"),
        ("139—0000—0002", "139****0002"),
        ("139 - 0000 - 0002", "139****0002"),
        ("(139)00000002", "(139****0002"),
        ("+8613900000002", "139****0002"),
        ("＋８６ １３９００００００００２", "139****0002"),
        ("+86 139 0000 0002", "139****0002"),
        ("008613900000002", "139****0002"),
        ("00 86 139 0000 0002", "139****0002"),
        ("86-13900000002", "139****0002"),
        ("013900000002", "139****0002"),
        ("1\u200b3\u200b9\u200b0\u200b0\u200b0\u200b0\u200b0\u200b0\u200b0\u200b2", "139****0002"),
        ("①③⑨⓪⓪⓪⓪⓪⓪⓪②", "139****0002"),
        ("١٣٩٠٠٠٠٠٠٠٢", "139****0002"),
        ("1️⃣3️⃣9️⃣0️⃣0️⃣0️⃣0️⃣0️⃣0️⃣0️⃣2", "139****0002"),
        ("一三九零零零零零零零二", "139****0002"),
        ("幺三九〇〇〇〇〇〇〇两", "139****0002"),
        ("壹叁玖零零零零零零零貳", "139****0002"),
        ("幺三勾洞洞洞洞洞洞洞兩", "139****0002"),
        ("〡〣〩〇〇〇〇〇〇〇〢", "139****0002"),
        ("幺三拐洞洞洞洞洞洞洞两", "137****0002"),
        ("一三九 0000 零零零二", "139****0002"),
        ("单号二13900000002", "单号二139****0002"),
        ("20261125 13900000002 2", "20261125 139****0002 2"),
        ("13900000002/13712345678", "139****0002/137****5678"),
        ("010-88886666", "108****6666"),
        ("(0755) 2345 6789", "(755****6789"),
        ("+86 (0)10 8888 6666", "108****6666"),
        ("0311 8888666", "311****8666"),
        ("+44 1632 960001", "441****0001"),
        ("00441632960001", "441****0001"),
        ("+1 (202) 555-0143", "120****0143"),
        ("139/0000/0002", "139****0002"),
        ("139 / 0000 / 0002", "139****0002"),
        ("139／0000＼0002", "139****0002"),
        ("139|0000|0002", "139****0002"),
        ("139\r\n0000\r\n\r\n0002", "139****0002"),
        ("1\n3\n9\n0\n0\n0\n0\n0\n0\n0\n2\n", "139****0002\n"),
        ("139\u20280000\u20290002", "139****0002"),
        ("139          0000          0002", "139****0002"),
        ("139\u20070000\u202f0002", "139****0002"),
        ("1\u03363\u03369\u03360000\u0301000\u03362", "139****0002"),
        ("139\u3164\u31640000\u28000002", "139****0002"),
        ("139,0000,0002", "139****0002"),
        ("139:0000：0002", "139****0002"),
        ("139、0000，0002", "139****0002"),
        ("139*0000#0002", "139****0002"),
        ("一三九、零零零零、零零零二", "139****0002"),
        ("㊀㊂㊈〇〇〇〇〇〇〇㊁", "139****0002"),
        ("0755/2345/6789", "755****6789"),
        ("+44/1632/960001", "441****0001"),
        ("13/10/2026 139/0000/0002", "13/10/2026 139****0002"),
        ("13.50 139/0000/0002", "135****0002"),
        ("139.00/000002", "139****0002"),
        ("13.90 0.00 0.00 2", "139****0002"),
        ("138/1111/2222元", "138****2222元"),
        ("13.50一一一二二二二", "135****2222"),
        ("1350 139 0000 0002", "135****0002"),
        ("13/9/20 00 0002", "139****0002"),
        ("139【0000】0002", "139****0002"),
        ("139「0000」“0002”", "139****0002”"),
        ("139😀0000😀0002", "139****0002"),
        ("139%0000!0002", "139****0002"),
        ("⒈⒊⒐00000002", "139****0002"),
        ("𝟏𝟑𝟗𝟎𝟎𝟎𝟎𝟎𝟎𝟎𝟐", "139****0002"),
        ("1⃣3⃣9⃣0000⃣0002", "139****0002"),
        ("十三九零零零零零零零二", "139****0002"),
        ("十三、九零零零、零零零零二", "139****0002"),
        ("一三九零零零零零零三十", "139****0030"),
        ("一百三十九零零零零零零零二", "139****0002"),
        ("拾三九零零零零零零零贰", "139****0002"),
        ("依叁酒灵灵灵灵灵灵灵尔", "139****0002"),
        ("要三久，林林林林，另另另二", "139****0002"),
        ("yao san jiu ling ling ling ling ling ling ling 2", "139****0002"),
        ("YaoSanJiu0000LingLingLing二", "139****0002"),
        ("one three nine zero zero zero zero oh oh oh 2", "139****0002"),
        ("l39ooooooo2", "139****0002"),
        ("I39OOOOOOO2", "139****0002"),
        ("｜３９ｏｏｏｏｏｏｏ２", "139****0002"),
        ("1З9оооо0002", "139****0002"),
        ("13g0000000z", "139****0002"),
        ("tel:l39ooooooo2", "tel:139****0002"),
        ("l39 oooo 0002", "139****0002"),
        ("86l39ooooooo2", "139****0002"),
        ("电话l39ooooooo2谢谢", "电话139****0002谢谢"),
        ("1点3点9点0点0点0点0点0点0点0点2", "139****0002"),
        ("1点3分9点0分0点0分0点0分0点0分2分", "139****0002分"),
        ("一个三个九个零个零个零个零个零个零个零个二", "139****0002"),
        ("139转0000转0002", "139****0002"),
        ("1哈哈哈3哈哈哈9000哈哈哈0000哈哈哈2", "139****0002"),
        ("".join(chr(0xE0000 + ord(digit)) for digit in "13900000002"), "139****0002"),
        ("\u202e20000000931", "139****0002"),
        ("call \u202e20000000931\u202c now", "call 139****0002 now"),
        ("\u202e2000\u202d000\u202c0931", "139****0002"),
        ("\u202b0002 0000 139\u202c", "139****0002"),
        ("\u2067\u202e20000000931\u202c\u2069", "139****0002"),
    ],
)
def test_numbers_in_any_spelling_are_masked(text: str, masked: str) -> None:
    assert mask_numbers(text, SENDER) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "到门口了 🚪",
        "取件码 123456",
        "13:00-18:30 送到 101 室",
        "2026-11-25 14:30",
        "2026/11/25 13:00 3楼302",
        "订单 202611250000017",
        "运单号 SF1234567890123",
        "单号 9139000000029",
        "4001234567",
        "700100000010001",
        "+86 700100000010001",
        "+700100000010001",
        "10086",
        "一下就到，二楼三零二",
        "￥139.00, 12900000002",
        "15/3/2026 14:30",
        "15/3/2026 14.30",
        "05/11/2026 10:30-11:30",
        "05/11/2026\n10.30",
        "15/3 18:30-19:30 101",
        "13:00-18:30 1011",
        "13:00~18:30, 101",
        "13.00/18.30/101",
        "1/3/2026, 15/3/2026",
        "15/3/26\n18:30\n101",
        "10.00 12.00 15.00 20.00",
        "13.50/18.00/199",
        "￥139.00/￥130.50/￥1",
        "13.50元/1,800.00元/5元",
        "1350, 1280, 990",
        "15:30:00 14:30:00",
        "二〇二六年十一月二十五日 13:00",
    ],
)
def test_non_numbers_stay(text: str) -> None:
    assert mask_numbers(text, SENDER) == text


ORDINARY = """
您好，您的快递到了，在小区3号门，麻烦下来取一下
【菜鸟驿站】您的包裹已到，请凭取件码13-5-2024到1号楼底商领取，营业时间8:00-21:00
取件码：1-3-9002，地址：幸福路138号万达广场3楼
【丰巢】您有一个快递在5号柜，取件码 13890214，24小时内免费
单号 SF1390241234567，预计今天18:30送达
运单号YT8812345678901已由门卫代收
订单号 2026112513590001234，共3件，应付139.00元
您点的外卖13分钟后到，请准备好，谢谢
我在1栋3单元901室门口，敲门没人应
我到了，1点3分给您打电话没接
1点3分到，3点5分走，9点0分关门
骑手已到店，预计1点30分送到，距离您1.3公里
送到A座13层1390室，放门口就行
放在13号楼3单元9号柜0012格
尾号8888的乘客您好，我是白色大众，车牌京A13900，在3号出口等您
车牌粤B·1390X，停在138路公交站旁边
师傅您到了吗？我穿红衣服，在肯德基门口
一会儿就到，二十分钟，您在三楼等我，四个箱子五十六斤，七八个人抬
我是送外卖的，是您的吗？要一份还是两份？九点就关门了
我就是要三份，吧台那边，起码要十五分钟
我是要问一下：您是要三点送还是四点送？酒要几瓶？
三千八百元的货，一共十三箱，每箱二十四瓶，到付
一共138元，优惠13元，实付125元，已开发票
总价139元，订单尾号2026，房号8888
Hi, I am at gate 3, building 13, room 901. Please come down, thanks
I'll be late, about 10 minutes. See you at 1:30 or 2:00 at the lobby
Please leave it at the door, code 1390#, floor 8
My ETA is 13:45, order #A1B2-3900, total $13.90
See Bob at table 13, eat 2 slices, total 139 yuan at 5
Let's go to Lobby 1, lift 3, 9th floor; I see 2 old ladies at 10
13:00到14:00之间都在家，15:30以后到16:00前也行
送货时间：2026-11-25 13:00-18:00，2026-11-26 09:00-12:00
11月25日13点30分到11月26日9点00分之间都可以
11/25 13:30，11/26 14:00，12/1 15:00 都可以
快递柜密码是1390 0002，3号柜
价格：13元、15元、18元、20元、25元，要哪个？
13.5kg，1.39米，0.5米，2箱，1390x800x600mm
已放在门卫处，共2件：1件13斤，1件9斤
请拨打客服热线 400-123-4567 或 95338
如有问题请回拨此号码700100000010001
退货请寄：浙江省杭州市余杭区文一西路969号3号楼5楼，邮编311121
一单元二零三、三单元五零一、六单元七零二，各放一箱
门禁密码：一三九零井号，谢谢
房间一三九零，谢谢师傅
身份证后四位1390，核对一下
已核对，取货号1308，柜号9，格口0012
发票号码 13900002 已开，金额 ¥1390.00
Wi-Fi password is oil13bottle, floor 3
订单1390000012已送达，是我放的
取件码13890214，是我就放门口
my phone 3900000002 order is done 3900000003
请报尾号，1390000000是订单号
id 5e1390a1-0b3e-4e13-9000-0b2e1a390000, ref 1B8O0SE0001Z9
链接 https://t.example/l39ooo0b2xq?id=1e39000b0a2
(1)苹果3斤 (2)梨5斤 (3)香蕉9根 (4)西瓜1个
1、苹果3斤；2、梨5斤；3、香蕉9根；4、西瓜1个；5、葡萄2斤
1.苹果 3.梨 5.香蕉 7.西瓜 9.葡萄
第1步左转，第3个路口右转，第9栋，第0层，第0户
13路、15路、18路、139路公交都到
好的👌3分钟到😊1楼等我🙏
快递员电话请看App，尾号0002
请在22:00前取走，逾期每天1元，3天内免费，9天退回
订单123456789012，商品编号1390-0000-23
坐标 30.2741, 120.1551
30.27415,120.15515
12345678901
G1390次 5车13F，13:05开，18:42到
"""


@pytest.mark.parametrize("text", ORDINARY.strip().splitlines())
def test_ordinary_texts_stay_unchanged(text: str) -> None:
    assert mask_numbers(text, SENDER) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("13800000001", "138****0001"),
        ("913800000001999", "9138****0001999"),
        ("1380 first, then 0000001", "138****0001"),
        ("1-3-8 / 0-0-0-0 / 0-0-0-1", "138****0001"),
        ("138,0000,0001\n", "138****0001\n"),
        ("X一三八零零X零零零零零一X", "X138****0001X"),
        ("1380000000113800000001", "138****0001138****0001"),
        ("1380 一下 0000 二 001", "138****0001"),
        ("前三位 138，中间 0000，最后 0001", "前三位 138****0001"),
        ("要三吧，再来，灵灵灵灵灵灵灵，完了，幺", "138****0001"),
        ("lE8, 然后 ooooooo1", "138****0001"),
        ("1380000000幺", "138****0001"),
        ("xl38ooooooo1x", "x138****0001x"),
        ("10000000831 倒过来", "138****0001 倒过来"),
        ("l38零零零零零零零l", "138****0001"),
        ("one38-OOOO-OOO1", "138****0001"),
        ("一38OOOOOOO一", "138****0001"),
        ("1three8-0000-000I", "138****0001"),
        ("one 3 八 0 0 0 0 0 0 0 l", "138****0001"),
        ("lE8 zero zero zero zero, and the rest: zero zero zero one", "138****0001ne"),
        ("xOneThreeEightOOOO灵灵灵lx", "x138****0001x"),
        ("138 triple zero, triple zero, zero 1", "138****0001"),
        ("one three eight double zero double zero double 0 zero one", "138****0001ne"),
        ("one three eight nought nought nought Nought Triple Nought one", "138****0001ne"),
        ("138tripleo double o double OI", "138****0001"),
        ("".join(chr(0xE0000 + ord(digit)) for digit in "13800000001"), "138****0001"),
    ],
)
def test_senders_number_is_found_with_any_text_between_its_digits(text: str, masked: str) -> None:
    assert mask_numbers(text, SENDER) == masked


@pytest.mark.parametrize("text", ["sıx", "sİx", "trıple nıne", "ſix"])
def test_letters_whose_other_case_is_of_another_alphabet_are_handled(text: str) -> None:
    assert mask_numbers(text, SENDER) == text


@pytest.mark.parametrize("sign", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_direction_marks_are_removed(sign: str) -> None:
    assert mask_numbers(f"ab{sign}cd", SENDER) in ("abcd", "abdc")


def test_reversed_text_is_relayed_in_display_order() -> None:
    assert mask_numbers("到\u202e口门\u202c了 \u202e\u202dab\u202c12", SENDER) == "到门口了 21ab"
    assert mask_numbers("到\u202b口 门\u202c了", SENDER) == "到门 口了"


def test_mask_leaves_no_new_number() -> None:
    assert mask_numbers("13800010001 0001 0001 0001 0001", "8613800010001") == "138****0001"


CHAIN = "13900001391" + " 2341391" * 20  # each mask leaves digits that make a number with the next ones


@pytest.mark.parametrize("text", [CHAIN, "13900000002"])
def test_single_pass_finds_any_number(text: str) -> None:
    assert mask_within(1, text, SENDER) is None
    assert mask_within(1, "到\u202e口门\u202c了", SENDER) == "到门口了"


def test_number_after_the_last_pass_masks_the_whole_text() -> None:
    assert mask_within(MOST_PASSES, CHAIN, SENDER) is None
    assert mask_numbers(CHAIN, SENDER) == "****"


def test_receivers_number_cannot_be_guessed() -> None:
    """Numbers are found by shape only, so all guesses have the same result."""
    guesses = [f"9139{n:04}00029" for n in range(0, 10_000, 99)]
    assert all(mask_numbers(guess, SENDER) == guess for guess in guesses)


def test_extension_is_found_only_alone() -> None:
    assert mask_numbers('"101", room 1012', "101") == '"****", room 1012'


def test_anonymous_sender_has_no_number() -> None:
    assert mask_numbers("hello 13900000002", "") == "hello 139****0002"


def test_senders_700_number_is_not_masked() -> None:
    assert mask_numbers("call 700100000010009, not 13900000002", "700100000010009") == (
        "call 700100000010009, not 139****0002"
    )


SIGNS = st.sampled_from([*string.digits, *" -.()+*,aol", "３", "一", "零", "十", "是", "\u200b", "\u202e", "送", "⑪"])


@given(st.lists(SIGNS, max_size=60).map("".join))
def test_masking_is_idempotent(text: str) -> None:
    once = mask_numbers(text, SENDER)
    assert mask_numbers(once, SENDER) == once


@given(st.text(SIGNS, max_size=20), st.text(SIGNS, max_size=20), st.lists(st.text(" -.", max_size=3), min_size=10))
def test_senders_number_never_passes(before: str, after: str, gaps: list[str]) -> None:
    digits = SENDER[2:]
    written = "".join(map("".join, zip(digits, [*gaps[:10], ""], strict=True)))
    masked = mask_numbers(before + written + after, SENDER)
    assert digits not in "".join(sign for sign in masked if sign in string.digits)
    assert mask_number(SENDER) in masked or "****" in masked
